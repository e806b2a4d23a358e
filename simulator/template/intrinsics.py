"""Intrinsic functions: Ref, Sub, GetAtt, Join, Select, Split, If, Equals, And, Or, Not, FindInMap.

What a Ref or GetAtt of a resource gives is asked of ``resource_value``, which knows names and ARNs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from simulator.template.errors import TemplateError
from simulator.template.nodes import ListNode, MapNode

NO_VALUE: Final = object()
_SUB = re.compile(r"\$\{([^!}][^}]*)\}")
_LITERAL = re.compile(r"\$\{!([^}]*)\}")
SUPPORTED = "Ref, Sub, GetAtt, Join, Select, Split, If, Equals, And, Or, Not, FindInMap"

# (logical id, attribute or None for Ref, line) -> value
ResourceValue = Callable[[str, str | None, int], Any]


class Resolver:
    """Turns nodes into plain values, given parameters, pseudo parameters, mappings and conditions."""

    def __init__(
        self,
        file: Path,
        parameters: Mapping[str, Any],
        mappings: Mapping[str, Any],
        conditions: Mapping[str, Any],
        resource_value: ResourceValue,
    ) -> None:
        self.file = file
        self.parameters = parameters
        self.mappings = mappings
        self.conditions = conditions
        self.resource_value = resource_value
        self._known: dict[str, bool] = {}
        self._asking: list[str] = []

    def error(self, message: str, line: int, advice: str = "") -> TemplateError:
        return TemplateError(message, self.file, line, advice)

    def resolve(self, node: Any, line: int = 0) -> Any:
        """The value of ``node``; members that resolve to AWS::NoValue are left out.

        :raises TemplateError: unknown names, unsupported functions, wrong arguments.
        """
        if isinstance(node, MapNode):
            if len(node) == 1:
                (key,) = node
                if key in ("Ref", "Condition") or key.startswith("Fn::"):
                    return self._call(key, node[key], node.line)
            resolved = MapNode(node.line)
            resolved.lines = dict(node.lines)
            for key, value in node.items():
                found = self.resolve(value, node.line_of(key))
                if found is not NO_VALUE:
                    resolved[key] = found
            return resolved
        if isinstance(node, list):
            kept = ListNode(getattr(node, "line", line))
            kept.extend(one for one in (self.resolve(item, line) for item in node) if one is not NO_VALUE)
            return kept
        return node

    def condition(self, name: str, line: int) -> bool:
        """Whether the condition called ``name`` holds."""
        if name not in self._known:
            if name not in self.conditions:
                raise self.error(f"there is no condition {name}", line, "name one of Conditions")
            if name in self._asking:
                raise self.error(
                    f"conditions refer to each other in a circle: {' -> '.join([*self._asking, name])}", line
                )
            self._asking.append(name)
            self._known[name] = self._truth(self.resolve(self.conditions[name], line), line)
            self._asking.pop()
        return self._known[name]

    def _truth(self, value: Any, line: int) -> bool:
        if isinstance(value, bool):
            return value
        if value in ("true", "false"):
            return bool(value == "true")
        raise self.error(f"a condition must be true or false, not {value!r}", line)

    def _call(self, key: str, argument: Any, line: int) -> Any:
        if key == "Ref":
            return self._ref(argument, line)
        if key == "Condition":
            return self.condition(str(argument), line)
        handler = getattr(self, f"_{key.removeprefix('Fn::').lower()}", None)
        if handler is None or key.removeprefix("Fn::") not in SUPPORTED.split(", "):
            raise self.error(f"the intrinsic function {key} is not supported", line, f"supported are {SUPPORTED}")
        return handler(argument, line)

    def _ref(self, name: Any, line: int) -> Any:
        if name == "AWS::NoValue":
            return NO_VALUE
        if not isinstance(name, str):
            raise self.error("Ref takes a name", line)
        if name in self.parameters:
            return self.parameters[name]
        return self.resource_value(name, None, line)

    def _getatt(self, argument: Any, line: int) -> Any:
        parts = argument.split(".", 1) if isinstance(argument, str) else argument
        if not isinstance(parts, list) or len(parts) != 2:
            raise self.error("GetAtt takes a logical id and an attribute", line, "such as !GetAtt Stream.Arn")
        return self.resource_value(str(parts[0]), str(self.resolve(parts[1], line)), line)

    def _sub(self, argument: Any, line: int) -> str:
        names: Mapping[str, Any] = {}
        if isinstance(argument, list):
            if len(argument) != 2 or not isinstance(argument[1], dict):
                raise self.error("Sub takes a string, or a string and a mapping", line)
            argument, names = argument[0], self.resolve(argument[1], line)
        if not isinstance(argument, str):
            raise self.error("Sub takes a string", line)

        def value(match: re.Match[str]) -> str:
            name = match[1].strip()
            if name in names:
                return _text(names[name])
            return _text(self._getatt(name, line) if "." in name else self._ref(name, line))

        return _LITERAL.sub(r"${\1}", _SUB.sub(value, argument))

    def _join(self, argument: Any, line: int) -> str:
        separator, items = self._pair("Join", argument, line)
        if not isinstance(items, list):
            raise self.error("Join takes a separator and a list", line)
        return str(separator).join(_text(item) for item in items)

    def _split(self, argument: Any, line: int) -> list[str]:
        separator, text = self._pair("Split", argument, line)
        return str(text).split(str(separator))

    def _select(self, argument: Any, line: int) -> Any:
        index, items = self._pair("Select", argument, line)
        try:
            position = int(index)
            if position < 0:
                raise IndexError
            return items[position]
        except (TypeError, ValueError, IndexError):
            raise self.error(f"Select cannot take item {index} of {items}", line) from None

    def _findinmap(self, argument: Any, line: int) -> Any:
        keys = self.resolve(argument, line)
        found: Any = self.mappings
        for key in keys if isinstance(keys, list) and len(keys) == 3 else [None]:
            if not isinstance(found, dict) or str(key) not in found:
                raise self.error(f"FindInMap finds nothing under {keys}", line, "check Mappings")
            found = found[str(key)]
        return found

    def _if(self, argument: Any, line: int) -> Any:
        if not isinstance(argument, list) or len(argument) != 3:
            raise self.error("If takes a condition's name and two values", line)
        return self.resolve(argument[1 if self.condition(str(argument[0]), line) else 2], line)

    def _equals(self, argument: Any, line: int) -> bool:
        left, right = self._pair("Equals", argument, line)
        return _text(left) == _text(right)

    def _not(self, argument: Any, line: int) -> bool:
        (value,) = self._several("Not", argument, line, 1, 1)
        return not value

    def _and(self, argument: Any, line: int) -> bool:
        return all(self._several("And", argument, line, 2, 10))

    def _or(self, argument: Any, line: int) -> bool:
        return any(self._several("Or", argument, line, 2, 10))

    def _several(self, name: str, argument: Any, line: int, least: int, most: int) -> list[bool]:
        values = self.resolve(argument, line)
        if not isinstance(values, list) or not least <= len(values) <= most:
            raise self.error(f"{name} takes {least} to {most} conditions", line)
        return [self._truth(value, line) for value in values]

    def _pair(self, name: str, argument: Any, line: int) -> tuple[Any, Any]:
        values = self.resolve(argument, line)
        if not isinstance(values, list) or len(values) != 2:
            raise self.error(f"{name} takes two arguments", line)
        return values[0], values[1]


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return ",".join(_text(item) for item in value)
    return str(value)
