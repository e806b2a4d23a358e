"""``samconfig.toml``: the environments of ``--config-env``, in the format that ``sam deploy`` reads."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from simulator.template.errors import ConfigError

# NAME=VALUE or ParameterKey=NAME,ParameterValue=VALUE; a value with spaces stands in quotes or escapes them.
_OVERRIDE = re.compile(
    r"""(?:ParameterKey=(?P<key>"?[A-Za-z0-9]+"?),ParameterValue= | (?P<name>"?[A-Za-z0-9]+"?)=)
        (?P<value> "(?:\\.|[^"\\])*" | '(?:\\.|[^'\\])*' | (?:\\.|[^\s"\\])+ )
        (?:\ +|$)""",
    re.VERBOSE | re.DOTALL,
)
_ESCAPED = re.compile(r"""\\([ "'])""")


@dataclass(frozen=True, slots=True)
class Environment:
    """What one environment of samconfig.toml says that has a meaning here. ``overrides`` are texts."""

    name: str
    origin: str
    overrides: Mapping[str, str] = field(default_factory=dict)
    stack_name: str | None = None


def read_environment(path: Path, config_env: str, *, required: bool = False) -> Environment:
    """Environment ``config_env`` of the file at ``path``: its ``global`` table, then its ``deploy`` table on top.

    A file that is not there, or has no ``default``, is an empty ``default``, unless ``required``.

    :raises ConfigError: unreadable file, unknown environment, malformed overrides.
    """
    origin = f"{path.name} [{config_env}]"
    try:
        with path.open("rb") as file:
            config = tomllib.load(file)
    except FileNotFoundError:
        if config_env == "default" and not required:
            return Environment(config_env, origin)
        raise ConfigError(f"there is no {path}, so no environment {config_env!r}; leave --config-env out") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: not UTF-8 text; is it a samconfig.toml?") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from None
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None
    environments = [name for name, value in config.items() if isinstance(value, dict)]
    if config_env not in environments:
        if config_env == "default" and not required:
            return Environment(config_env, origin)
        near = difflib.get_close_matches(config_env, environments, 1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise ConfigError(f"{path} has no environment {config_env!r}; {hint}it has {', '.join(environments) or 'none'}")
    overrides: dict[str, str] = {}
    stack_name = None
    for command in ("global", "deploy"):
        where = f"{path} [{config_env}.{command}.parameters]"
        parameters = _table(_table(config[config_env], command, path), "parameters", path)
        overrides |= parse_overrides(parameters.get("parameter_overrides", ()), where)
        stack_name = parameters.get("stack_name", stack_name)
        if stack_name is not None and not isinstance(stack_name, str):
            raise ConfigError(f"{where}: stack_name must be a text, not {stack_name!r}")
    return Environment(config_env, origin, overrides, stack_name)


def _table(table: Mapping[str, Any], name: str, path: Path) -> Mapping[str, Any]:
    found = table.get(name, {})
    if not isinstance(found, dict):
        raise ConfigError(f"{path}: {name} must be a table, as in [default.deploy.parameters]")
    return found


def parse_overrides(given: Any, where: str) -> dict[str, str]:
    """Parameter overrides in the forms that SAM takes: ``'A=1 B="x y"'``, a list of such texts, or a table.

    SAM drops, without a word, the part of a text that it cannot match, such as ``y`` of ``A=x y``, and takes a line
    break for a part of the value; here both are errors, since the deployment would be another one.

    :raises ConfigError: naming ``where`` and the first word that is not NAME=VALUE.
    """
    if isinstance(given, dict):
        return {str(name): _as_text(value, str(name), where) for name, value in given.items()}
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list | tuple) or not all(isinstance(text, str) for text in texts):
        raise ConfigError(f"{where}: parameter_overrides must be a text or a list of texts such as NAME=VALUE")
    found: dict[str, str] = {}
    for text in texts:
        rest = text.strip()
        while rest:
            match = _OVERRIDE.match(rest)
            if match is None:
                word = rest.split()[0]
                problem = f'{word!r} is not NAME=VALUE; quote a value as in NAME="a b"'
                if _OVERRIDE.fullmatch(word):
                    problem = f"after {word!r} there is a tab or a line break; separate overrides with spaces"
                raise ConfigError(f"{where}: {problem}")
            found[(match["key"] or match["name"]).strip('"')] = _unquoted(match["value"])
            rest = rest[match.end() :]
    return found


def _unquoted(value: str) -> str:
    if len(value) >= 2 and value[0] == value[-1] and value[0] in "\"'":
        value = value[1:-1]
    return _ESCAPED.sub(r"\1", value)


def _as_text(value: Any, name: str, where: str) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return ",".join(_as_text(item, name, where) for item in value)
    if isinstance(value, str | int | float):
        return str(value)
    raise ConfigError(f"{where}: {name} must be a text or a number")
