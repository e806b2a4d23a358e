"""A template's Parameters, with values from their Default, samconfig.toml and overrides, checked as declared."""

from __future__ import annotations

import difflib
import re
import shlex
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from simulator.template.errors import ConfigError, TemplateError
from simulator.template.nodes import MapNode


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter's value and where it came from (``default``, ``samconfig.toml [env]`` or ``override``)."""

    name: str
    value: Any
    origin: str


def read_samconfig(path: Path, config_env: str) -> dict[str, str]:
    """The parameter overrides of environment ``config_env``; empty when there is no file and it is ``default``.

    :raises ConfigError: unreadable file, unknown environment.
    """
    try:
        with path.open("rb") as file:
            config = tomllib.load(file)
    except FileNotFoundError:
        if config_env == "default":
            return {}
        raise ConfigError(f"there is no {path}, so no environment {config_env!r}; leave --config-env out") from None
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from None
    environments = [name for name, value in config.items() if isinstance(value, dict)]
    if config_env not in environments:
        if config_env == "default":
            return {}
        raise ConfigError(f"{path} has no environment {config_env!r}; it has {', '.join(environments) or 'none'}")
    found: dict[str, str] = {}
    for command in ("global", "deploy"):
        table = config[config_env].get(command, {})
        overrides = table.get("parameters", {}).get("parameter_overrides", []) if isinstance(table, dict) else []
        found |= parse_overrides(overrides, f"{path} [{config_env}.{command}.parameters]")
    return found


def parse_overrides(given: Any, where: str) -> dict[str, str]:
    """SAM's forms: ``"A=1 B='x y'"``, ``["A=1", "B=x"]`` or ``{A = 1}``. :raises ConfigError: for anything else."""
    if isinstance(given, dict):
        return {str(name): str(value) for name, value in given.items()}
    try:
        words = shlex.split(given) if isinstance(given, str) else list(given)
    except (TypeError, ValueError):
        raise ConfigError(f"{where}: parameter_overrides must be a string or a list of NAME=VALUE") from None
    found = {}
    for word in words:
        name, separator, value = str(word).partition("=")
        if not separator or not name:
            raise ConfigError(f"{where}: {word!r} is not NAME=VALUE")
        if isinstance(given, list) and len(value) >= 2 and value[0] == value[-1] and value[0] in "\"'":
            value = value[1:-1]
        found[name] = value
    return found


def resolve_parameters(
    declared: MapNode, file: Path, from_config: Mapping[str, str], config_env: str, overrides: Mapping[str, str]
) -> dict[str, Parameter]:
    """Every declared parameter with its checked value.

    :raises ConfigError: an override that no parameter has, or a value that its declaration refuses.
    :raises TemplateError: a parameter without any value.
    """
    config_origin = f"samconfig.toml [{config_env}]"
    for given, where in ((from_config, config_origin), (overrides, "--set")):
        for name in given:
            if name not in declared:
                near = difflib.get_close_matches(name, list(declared), 1)
                hint = f"did you mean {near[0]}? " if near else ""
                raise ConfigError(
                    f"{where}: there is no parameter {name}; {hint}there are {', '.join(declared) or 'none'}"
                )
    found = {}
    for name, declaration in declared.items():
        line = declared.line_of(name)
        if not isinstance(declaration, MapNode):
            raise TemplateError(f"parameter {name} must be a mapping", file, line)
        if name in overrides:
            text, origin = overrides[name], "override"
        elif name in from_config:
            text, origin = from_config[name], config_origin
        elif "Default" in declaration:
            text, origin = declaration["Default"], "default"
        else:
            raise TemplateError(f"parameter {name} has no value", file, line, f"give one with --set {name}=...")
        problem, value = _check(declaration, text)
        if problem:
            raise ConfigError(f"parameter {name} ({origin}): {text!r} {problem}")
        found[name] = Parameter(name, value, origin)
    return found


def _check(declaration: MapNode, given: Any) -> tuple[str, Any]:
    """What is wrong with ``given`` ("" when nothing), and its value in the declared type."""
    text = str(given).lower() if isinstance(given, bool) else str(given)
    kind = declaration.get("Type", "String")
    value: Any = text
    if kind == "Number":
        try:
            value = float(text) if re.search(r"[.eE]", text) else int(text)
        except ValueError:
            return "is not a number", None
    elif kind in ("CommaDelimitedList", "List<Number>", "List<String>"):
        value = [item.strip() for item in text.split(",")]
    allowed = declaration.get("AllowedValues")
    if allowed is not None and text not in [str(one) for one in allowed]:
        return f"is not one of {', '.join(str(one) for one in allowed)}", None
    for key, measure, wrong in (
        ("MinValue", value if kind == "Number" else None, "is less than {}"),
        ("MaxValue", value if kind == "Number" else None, "is more than {}"),
        ("MinLength", len(text) if kind == "String" else None, "is shorter than {} characters"),
        ("MaxLength", len(text) if kind == "String" else None, "is longer than {} characters"),
    ):
        if key not in declaration or measure is None:
            continue
        bound = float(declaration[key])
        if measure < bound if key.startswith("Min") else measure > bound:
            return wrong.format(declaration[key]), None
    pattern = declaration.get("AllowedPattern")
    if pattern is not None and not re.fullmatch(str(pattern), text):
        return f"does not match {pattern}", None
    return "", value
