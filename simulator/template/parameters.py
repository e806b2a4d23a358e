"""A template's Parameters, with values from their Default, samconfig.toml and overrides, checked as declared."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from simulator.template.errors import ConfigError, DeploymentError, TemplateError
from simulator.template.intrinsics import scalar_text
from simulator.template.nodes import ListNode, MapNode
from simulator.template.samconfig import Environment

_INTEGER = re.compile(r"[+-]?[0-9]{1,18}")
_NUMBER = re.compile(r"[+-]?([0-9]{1,18}\.?[0-9]{0,18}|\.[0-9]{1,18})([eE][+-]?[0-9]{1,3})?")
_LISTS = ("CommaDelimitedList", "List<Number>")
_MEMBERS = (
    "Type",
    "Default",
    "Description",
    "AllowedValues",
    "AllowedPattern",
    "ConstraintDescription",
    "MinValue",
    "MaxValue",
    "MinLength",
    "MaxLength",
    "NoEcho",
)


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter's value and its origin: ``default``, ``samconfig.toml [env]`` or ``override``.

    ``value`` is an int or float for Number, a list for list types, else a text. ``no_echo`` is not to be shown.
    """

    name: str
    value: Any
    origin: str
    no_echo: bool = False


def resolve_parameters(
    declared: MapNode, file: Path, environment: Environment, overrides: Mapping[str, str]
) -> dict[str, Parameter]:
    """Every declared parameter with its checked value; an override beats the environment, that beats the Default.

    :raises ConfigError: an override that no parameter has, or a value that its declaration refuses.
    :raises TemplateError: a malformed declaration, or a parameter without any value.
    """
    for given, where in ((environment.overrides, environment.origin), (overrides, "override")):
        for name in given:
            if name not in declared:
                raise ConfigError(f"{where}: there is no parameter {name}; {_suggest(name, declared)}")
    found = {}
    for name, node in declared.items():
        declaration = _Declaration(name, node, file, declared.line_of(name))
        if name in overrides:
            text, origin = overrides[name], "override"
        elif name in environment.overrides:
            text, origin = environment.overrides[name], environment.origin
        elif "Default" in node:
            text, origin = declaration.text("Default"), "default"
        else:
            raise declaration.error("Default", "has no value", f"give one with --set {name}=VALUE")
        no_echo = declaration.text("NoEcho", "false").lower() == "true"
        found[name] = Parameter(name, declaration.value(text, origin, no_echo), origin, no_echo)
    return found


def _suggest(name: str, declared: MapNode) -> str:
    by_lower = {one.lower(): one for one in declared}
    near = difflib.get_close_matches(name.lower(), list(by_lower), 3, 0.5)
    hint = f"did you mean {' or '.join(by_lower[one] for one in near)}? " if near else ""
    return f"{hint}there are {', '.join(declared) or 'none'}"


class _Declaration:
    """One entry of Parameters; knows its line, and what values it takes."""

    def __init__(self, name: str, node: Any, file: Path, line: int) -> None:
        self.name, self.file, self.line = name, file, line
        if not isinstance(node, MapNode):
            raise TemplateError(f"parameter {name} must be a mapping with a Type", file, line)
        self.node = node
        for key in node:
            if key not in _MEMBERS:
                raise self.error(key, f"has no member {key}", f"members are {', '.join(_MEMBERS)}")
        self.kind = self.text("Type", "")
        if self.kind.startswith("AWS::SSM::"):
            raise self.error("Type", f"cannot have the Type {self.kind}", "use String and give the value itself")
        if not (self.kind in ("String", "Number", *_LISTS) or re.fullmatch(r"(List<)?AWS::[\w:]+>?", self.kind)):
            kinds = ", ".join(("String", "Number", *_LISTS))
            raise self.error("Type", f"cannot have the Type {self.kind or 'missing'}", f"types are {kinds}")

    def error(self, key: str, problem: str, advice: str = "") -> TemplateError:
        line = self.node.lines.get(key, self.line)
        return TemplateError(f"parameter {self.name} {problem}", self.file, line, advice)

    def text(self, key: str, default: str | None = None) -> str:
        if key not in self.node and default is not None:
            return default
        text = scalar_text(self.node.get(key))
        if text is None:
            raise self.error(key, f"takes a text or a number as {key}")
        return text

    def value(self, text: str, origin: str, no_echo: bool) -> Any:
        """``text`` in the declared type. :raises DeploymentError: when the declaration refuses it."""
        items: list[Any] = [text]
        if self.kind in _LISTS or self.kind.startswith("List<"):
            items = [item.strip() for item in text.split(",")] if text else []
        problem, advice = self._length(text), self.text("ConstraintDescription", "")
        values = []
        for item in items:
            if self.kind in ("Number", "List<Number>"):
                number = _number(item)
                values.append(number)
                problem = problem or ("is not a number" if number is None else self._range(number))
            else:
                values.append(item)
            problem = problem or self._allowed(item)
        if problem:
            raise self._refusal(f"{'****' if no_echo else repr(text)} {problem}", origin, advice)
        return values if self.kind.startswith(("List<", "CommaDelimited")) else values[0]

    def _refusal(self, problem: str, origin: str, advice: str) -> DeploymentError:
        if origin == "default":
            return self.error("Default", f"refuses its own Default: {problem}", advice)
        because = f"; {advice}" if advice else ""
        return ConfigError(
            f"parameter {self.name} ({origin}): {problem}{because} (declared at {self.file}:{self.line})"
        )

    def _range(self, number: float) -> str:
        if "MinValue" in self.node and number < self._bound("MinValue"):
            return f"is less than {self.node['MinValue']}"
        if "MaxValue" in self.node and number > self._bound("MaxValue"):
            return f"is more than {self.node['MaxValue']}"
        return ""

    def _length(self, text: str) -> str:
        if self.kind != "String":
            return ""
        if "MinLength" in self.node and len(text) < self._bound("MinLength"):
            return f"is shorter than {self.node['MinLength']} characters"
        if "MaxLength" in self.node and len(text) > self._bound("MaxLength"):
            return f"is longer than {self.node['MaxLength']} characters"
        return ""

    def _allowed(self, text: str) -> str:
        if "AllowedValues" in self.node:
            allowed = self.node["AllowedValues"]
            if not isinstance(allowed, ListNode) or not allowed:
                raise self.error("AllowedValues", "takes a list as AllowedValues")
            texts = [scalar_text(one) or "" for one in allowed]
            number = _number(text) if "Number" in self.kind else None
            if text not in texts and (number is None or number not in [_number(one) for one in texts]):
                return f"is not one of {', '.join(texts)}"
        if "AllowedPattern" in self.node and "Number" not in self.kind:
            pattern = self.text("AllowedPattern")
            try:
                matches = re.fullmatch(pattern, text)
            except re.error as error:
                raise self.error("AllowedPattern", f"has an AllowedPattern that is not a pattern: {error}") from None
            if not matches:
                return f"does not match {pattern}"
        return ""

    def _bound(self, key: str) -> float:
        number = _number(self.text(key))
        if number is None:
            raise self.error(key, f"takes a number as {key}, not {self.node[key]!r}")
        return number


def _number(text: str) -> int | float | None:
    text = text.strip()
    if _INTEGER.fullmatch(text):
        return int(text)
    number = float(text) if _NUMBER.fullmatch(text) else math.inf
    return number if math.isfinite(number) else None
