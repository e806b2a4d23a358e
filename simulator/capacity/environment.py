"""Advice as an environment of ``samconfig.toml``, for ``sam deploy --config-env`` and every ``alleycat`` command alike.

An environment that is written here is a block of its own, from a comment that says how it was made to the end of its
one table::

    # Written by alleycat plan on 2026-11-28: change the command and run it again, rather than the numbers.
    # alleycat plan --advise --racers 1000 --write-env race-day
    # 6,000 bikers, 300 s: ...
    [race-day.deploy.parameters]
    stack_name = "alleycat"
    parameter_overrides = [
        "ShardCount=8",
    ]

Only such a block is ever replaced; every other byte of the file stays as it is. A library that keeps the format would
have to be told which comments belong to which table, which TOML does not say.
"""

from __future__ import annotations

import json
import re
import shlex
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from simulator.deployment import ConfigError, Deployment
from simulator.template.samconfig import parse_overrides

FILE = "samconfig.toml"
_MARK = "# Written by alleycat plan on "
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_PLAIN = re.compile(r"[A-Za-z0-9_.:/+-]+")


class WriteError(ValueError):
    """An environment cannot be written; the text is one line and says why or what to do."""


@dataclass(frozen=True, slots=True)
class Written:
    """What goes into an environment: ``command`` makes it again, ``about`` are further lines of its comment."""

    name: str
    overrides: Mapping[str, str]
    command: str
    about: tuple[str, ...]
    made: date


def check_environment(path: Path, name: str, base: str) -> None:
    """Whether ``name`` may be written, before anything is searched for. :raises WriteError:"""
    if not _NAME.fullmatch(name):
        raise WriteError(f"{name!r} cannot be an environment; use letters, digits, - and _")
    if name == base:
        raise WriteError(f"{name!r} is where the search begins (--config-env); write it under another name")
    text, told = _read(path)
    _block_in(text, name, told, path)


def overrides_of(deployment: Deployment) -> dict[str, str]:
    """Parameters that are not as the template has them by itself, without those that are secret."""
    return {
        name: str(value)
        for name, value in deployment.parameters.items()
        if deployment.origins[name] != "default" and name not in deployment.no_echo and not isinstance(value, list)
    }


def write_environment(path: Path, base: str, written: Written) -> None:
    """Put ``written`` into the file at ``path``, in place of what was written there before under its name.

    What else ``sam deploy`` is told, such as the stack's name, is taken from the environment ``base``.

    :raises WriteError: for a file that cannot be used, or an environment that somebody else wrote.
    """
    text, told = _read(path)
    newline = "\r\n" if "\r\n" in text else "\n"
    block = newline.join(_block(written, _settings(told, base))) + newline
    old = _block_in(text, written.name, told, path)
    if old is None:
        after = text if not text or text.endswith("\n") else text + newline
        after += (newline if after.strip() else "") + block
    else:
        after = text.replace(old, block, 1)
    found = tomllib.loads(after)
    others = {name: one for name, one in found.items() if name != written.name}
    assert others == {name: one for name, one in told.items() if name != written.name}, "nothing else may change"
    try:
        path.write_bytes(after.encode())
    except OSError as error:
        raise WriteError(f"{path} cannot be written: {error.strerror}") from None


def made_by(path: Path, name: str) -> list[str] | None:
    """The command that wrote the environment, in words; None when it was not written here."""
    text, told = _read(path)
    block = _block_in(text, name, told, path)
    return shlex.split(block.splitlines()[1].removeprefix("# ")) if block else None


def _read(path: Path) -> tuple[str, dict[str, Any]]:
    try:
        text = path.read_bytes().decode() if path.exists() else "version = 0.1\n"
        return text, tomllib.loads(text)
    except OSError as error:
        raise WriteError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise WriteError(f"{path} is not TOML: {error}") from None


def _settings(told: Mapping[str, Any], base: str) -> dict[str, Any]:
    settings = dict(told.get(base, {}).get("deploy", {}).get("parameters", {}))
    settings.pop("parameter_overrides", None)
    return {name: value for name, value in settings.items() if isinstance(value, str | bool | int)}


def _block(written: Written, settings: Mapping[str, Any]) -> Iterable[str]:
    yield f"{_MARK}{written.made.isoformat()}: change the command and run it again, rather than the numbers."
    for line in (written.command, *written.about):
        if not line.isprintable():
            raise WriteError(f"what made it cannot be told in a comment of one line: {line!r}")
        yield f"# {line}"
    yield f"[{written.name}.deploy.parameters]"
    for name, value in settings.items():
        yield f"{name} = {_toml(value)}"
    yield "parameter_overrides = ["
    for name, text in written.overrides.items():
        yield f"    {_toml(_override(name, text))},"
    yield "]"


def _override(name: str, text: str) -> str:
    override = f"{name}={text if _PLAIN.fullmatch(text) else _quoted(text)}"
    try:
        is_read_alike = parse_overrides([override], FILE) == {name: text}
    except ConfigError:
        is_read_alike = False
    if not is_read_alike:
        raise WriteError(f"{name} cannot be written to {FILE}: {text!r} has no form there")
    return override


def _toml(value: str | bool | int) -> str:
    """JSON's texts, numbers and booleans are TOML's; only DEL must be escaped besides."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _quoted(text: str) -> str:
    """As ``parameter_overrides`` take a value that is more than a word."""
    return '"' + text.replace('"', '\\"') + '"'


def _block_in(text: str, name: str, told: Mapping[str, Any], path: Path) -> str | None:
    """What was written under ``name``; None when there is no such environment.

    :raises WriteError: when somebody else wrote it, or added to it.
    """
    if name not in told:
        return None
    block = re.compile(
        rf"^{re.escape(_MARK)}.*\r?\n(?:#.*\r?\n)+\[{re.escape(name)}\.deploy\.parameters\]\r?\n"
        r"(?:[^\[\r\n].*\r?\n)*?\][ \t]*(?:\r?\n|\Z)",
        re.MULTILINE,
    )
    found = block.search(text)
    if found is None or tomllib.loads(found[0]).get(name) != told[name]:
        raise WriteError(
            f"{path} has an environment {name!r} that was not written by --write-env; take it out, or use another name"
        )
    return found[0]
