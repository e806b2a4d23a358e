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
"""What ``AWS::NoValue`` resolves to: the key or item that holds it is left out."""

# ${Name}, ${Resource.Attribute}, and ${!Literal}, which stays ${Literal}.
_SUB = re.compile(r"\$\{(!?)([^}]*)\}")

# (logical id, attribute or None for Ref, line) -> value
ResourceValue = Callable[[str, str | None, int], Any]


def is_intrinsic(node: Any) -> bool:
    """Whether ``node`` is a call of an intrinsic function rather than a mapping."""
    return isinstance(node, MapNode) and len(node) == 1 and _names_function(next(iter(node)))


def _names_function(key: str) -> bool:
    return key in ("Ref", "Condition") or key.startswith("Fn::")


class Resolver:
    """Turns nodes into plain values, given parameters, pseudo parameters, mappings and conditions."""

    def __init__(
        self,
        file: Path,
        parameters: Mapping[str, Any],
        mappings: Mapping[str, Any],
        conditions: MapNode,
        resource_value: ResourceValue,
    ) -> None:
        self.file = file
        self.parameters = parameters
        self.mappings = mappings
        self.conditions = conditions
        self.resource_value = resource_value
        self._known: dict[str, bool] = {}
        self._asking: list[str] = []
        self._functions: dict[str, Callable[[Any, int], Any]] = {
            "Ref": self._ref,
            "Condition": self._condition,
            "Fn::Sub": self._sub,
            "Fn::GetAtt": self._getatt,
            "Fn::Join": self._join,
            "Fn::Select": self._select,
            "Fn::Split": self._split,
            "Fn::If": self._if,
            "Fn::Equals": self._equals,
            "Fn::And": lambda argument, line: all(self._several("And", argument, line, 2, 10)),
            "Fn::Or": lambda argument, line: any(self._several("Or", argument, line, 2, 10)),
            "Fn::Not": lambda argument, line: not self._several("Not", argument, line, 1, 1)[0],
            "Fn::FindInMap": self._findinmap,
        }

    def error(self, message: str, line: int, advice: str = "") -> TemplateError:
        return TemplateError(message, self.file, line, advice)

    def resolve(self, node: Any, line: int = 0) -> Any:
        """The value of ``node``; members that resolve to AWS::NoValue are left out.

        :raises TemplateError: unknown names, unsupported functions, wrong arguments.
        """
        if isinstance(node, MapNode):
            if is_intrinsic(node):
                (key,) = node
                return self._call(key, node[key], node.line_of(key))
            resolved = MapNode(node.line)
            for key, value in node.items():
                if key.startswith("Fn::"):
                    self._function(key, node.line_of(key))
                    raise self.error(f"{key} must stand alone in its mapping", node.line_of(key))
                found = self.resolve(value, node.line_of(key))
                if found is not NO_VALUE:
                    resolved.put(key, found, node.line_of(key))
            return resolved
        if isinstance(node, list):
            own_line = getattr(node, "line", line)
            return ListNode(
                own_line, [one for one in (self.resolve(item, own_line) for item in node) if one is not NO_VALUE]
            )
        return node

    def condition(self, name: str, line: int) -> bool:
        """Whether the condition called ``name`` holds."""
        if name not in self._known:
            if name not in self.conditions:
                there = ", ".join(self.conditions) or "none"
                raise self.error(f"there is no condition {name}", line, f"Conditions has {there}")
            if name in self._asking:
                circle = " -> ".join([*self._asking, name])
                raise self.error(f"conditions refer to each other in a circle: {circle}", line)
            self._asking.append(name)
            at = self.conditions.line_of(name)
            self._known[name] = self._truth(self.resolve(self.conditions[name], at), at)
            self._asking.pop()
        return self._known[name]

    def _truth(self, value: Any, line: int) -> bool:
        if isinstance(value, bool):
            return value
        if value in ("true", "false"):
            return bool(value == "true")
        raise self.error(f"a condition must be true or false, not {_shown(value)}", line)

    def _function(self, key: str, line: int) -> Callable[[Any, int], Any]:
        handler = self._functions.get(key)
        if handler is None:
            known = ", ".join(name.removeprefix("Fn::") for name in self._functions)
            raise self.error(f"the intrinsic function {key} is not supported", line, f"supported are {known}")
        return handler

    def _call(self, key: str, argument: Any, line: int) -> Any:
        return self._function(key, line)(argument, line)

    def _condition(self, argument: Any, line: int) -> bool:
        if not isinstance(argument, str):
            raise self.error("Condition takes the name of a condition", line)
        return self.condition(argument, line)

    def _ref(self, name: Any, line: int) -> Any:
        if not isinstance(name, str):
            raise self.error("Ref takes a name", line)
        if name == "AWS::NoValue":
            return NO_VALUE
        if name in self.parameters:
            return self.parameters[name]
        if name.startswith("AWS::"):
            pseudo = ", ".join(one for one in self.parameters if one.startswith("AWS::"))
            raise self.error(f"there is no pseudo parameter {name}", line, f"there are {pseudo}, AWS::NoValue")
        return self.resource_value(name, None, line)

    def _getatt(self, argument: Any, line: int) -> Any:
        parts = argument.split(".", 1) if isinstance(argument, str) else argument
        if not isinstance(parts, list) or len(parts) != 2 or not isinstance(parts[0], str):
            raise self.error("GetAtt takes a logical id and an attribute", line, "such as !GetAtt Stream.Arn")
        return self.resource_value(parts[0], self._text("GetAtt", self.resolve(parts[1], line), line), line)

    def _sub(self, argument: Any, line: int) -> str:
        names: Mapping[str, Any] = {}
        if isinstance(argument, list):
            if len(argument) != 2 or not isinstance(argument[1], MapNode):
                raise self.error("Sub takes a string, or a string and a mapping", line)
            argument, names = argument[0], self.resolve(argument[1], line)
        if not isinstance(argument, str) or not isinstance(names, Mapping):
            raise self.error("Sub takes a string, or a string and a mapping", line)

        def value(match: re.Match[str]) -> str:
            name = match[2].strip()
            if match[1]:
                return f"${{{match[2]}}}"
            if name in names:
                return self._text("Sub", names[name], line)
            found = self._getatt(name, line) if "." in name else self._ref(name, line)
            return self._text("Sub", found, line)

        return _SUB.sub(value, argument)

    def _join(self, argument: Any, line: int) -> str:
        separator, items = self._pair("Join", argument, line)
        if not isinstance(items, list) or not isinstance(separator, str):
            raise self.error("Join takes a separator and a list", line)
        return separator.join(self._text("Join", item, line) for item in items)

    def _split(self, argument: Any, line: int) -> list[str]:
        separator, text = self._pair("Split", argument, line)
        if not isinstance(separator, str) or not separator:
            raise self.error("Split takes a separator and a text", line)
        return ListNode(line, list(self._text("Split", text, line).split(separator)))

    def _select(self, argument: Any, line: int) -> Any:
        index, items = self._pair("Select", argument, line)
        if not isinstance(items, list):
            raise self.error("Select takes an index and a list", line)
        if not re.fullmatch(r"[0-9]{1,6}", str(index)) or int(index) >= len(items):
            raise self.error(
                f"Select cannot take item {scalar_text(index) or _shown(index)} of {len(items)}", line, "the first is 0"
            )
        return items[int(index)]

    def _findinmap(self, argument: Any, line: int) -> Any:
        keys = self.resolve(argument, line)
        if not isinstance(keys, list) or len(keys) != 3:
            raise self.error("FindInMap takes a mapping's name and two keys", line)
        found: Any = self.mappings
        for key in keys:
            text = self._text("FindInMap", key, line)
            if not isinstance(found, MapNode) or text not in found:
                there = ", ".join(found) if isinstance(found, MapNode) else "no keys"
                raise self.error(f"FindInMap finds nothing under {text}", line, f"Mappings has {there} there")
            found = found[text]
        return found

    def _if(self, argument: Any, line: int) -> Any:
        if not isinstance(argument, list) or len(argument) != 3 or not isinstance(argument[0], str):
            raise self.error("If takes a condition's name and two values", line)
        # Only the branch that is taken: the other may refer to what its condition leaves out.
        return self.resolve(argument[1 if self.condition(argument[0], line) else 2], line)

    def _equals(self, argument: Any, line: int) -> bool:
        left, right = self._pair("Equals", argument, line)
        return self._comparable(left, line) == self._comparable(right, line)

    def _comparable(self, value: Any, line: int) -> str:
        if isinstance(value, list):
            return ",".join(self._text("Equals", item, line) for item in value)
        return self._text("Equals", value, line)

    def _several(self, name: str, argument: Any, line: int, least: int, most: int) -> list[bool]:
        values = self.resolve(argument, line)
        if not isinstance(values, list) or not least <= len(values) <= most:
            number = f"{least} to {most} conditions" if most > 1 else "one condition in a list"
            raise self.error(f"{name} takes {number}", line)
        return [self._truth(value, line) for value in values]

    def _pair(self, name: str, argument: Any, line: int) -> tuple[Any, Any]:
        values = self.resolve(argument, line)
        if not isinstance(values, list) or len(values) != 2:
            raise self.error(f"{name} takes two arguments", line)
        return values[0], values[1]

    def _text(self, name: str, value: Any, line: int) -> str:
        text = scalar_text(value)
        if text is None:
            raise self.error(f"{name} takes text, not {_shown(value)}", line)
        return text


def scalar_text(value: Any) -> str | None:
    """A text, number or truth value as CloudFormation writes it; None for anything else."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, str | int | float) else None


def _shown(value: Any) -> str:
    if value is NO_VALUE:
        return "AWS::NoValue"
    if isinstance(value, dict | list):
        return "a mapping" if isinstance(value, dict) else "a list"
    return repr(str(value)[:80])
