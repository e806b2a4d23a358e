"""FilterCriteria: which records of a stream a function gets. Pure functions; the syntax is EventBridge's.

A pattern is a JSON object of the record's shape. Its leaves are lists of rules; a field matches if one of its rules
does, a pattern if all of its fields do, a record if one of the patterns does. Rules (CAH invocation-eventfiltering):

==================== ======================================== =============================================
null, empty, equals  ``[null]``, ``[""]``, ``["a", 7, true]`` numbers as they are written: 300 is not 3.0e2
ignoring case        ``[{"equals-ignore-case": "a"}]``
not                  ``[{"anything-but": ["a", "b"]}]``       the field must be there
numeric              ``[{"numeric": [">", 10, "<=", 20]}]``   JSON numbers only, not their texts
exists               ``[{"exists": false}]``                  of leaves: an object or an empty list does not count
begins, ends with    ``[{"prefix": "a"}, {"suffix": "z"}]``
or, over fields      ``"$or": [{"a": [1]}, {"b": [2]}]``
==================== ======================================== =============================================

A list in a record matches if one of its elements does. Other operators of EventBridge (``wildcard``, ``cidr``, ...)
are not among those Lambda documents, and are refused.

For Kinesis, a pattern is laid on the members of ``kinesis`` and of the record around it; ``data`` is decoded from
base64 and JSON, and a record whose data is not JSON matches no pattern that names ``data``. For DynamoDB it is laid
on the record as it is.
"""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Callable, Iterable, Mapping
from operator import eq, ge, gt, le, lt
from typing import Any, NoReturn

from consumers.runtime.errors import ConfigurationError

Json = Any

DATA_KEYS = {"Kinesis": "data", "DynamoDB": "dynamodb"}
DEPTH_MAX = 100
"""Levels of a pattern; AWS's limit, if there is one besides the 4,096 characters, is not published."""
_RESERVED_IN_OR = frozenset({"exists", "equals-ignore-case", "prefix", "suffix", "anything-but", "numeric"})
_COMPARE = {"=": eq, "<": lt, "<=": le, ">": gt, ">=": ge}
_MISSING = object()


class Number(str):
    """A JSON number as it is written."""

    __slots__ = ()


class Pattern:
    """One compiled Pattern of FilterCriteria.

    :raises ConfigurationError: it is not a pattern; the message says where.
    """

    def __init__(self, text: str, source_kind: str = "Kinesis") -> None:
        try:
            tree = _loads(text)
        except (ValueError, RecursionError) as error:
            raise ConfigurationError(f"the filter pattern {_short(text)} is not JSON: {error}") from error
        if not isinstance(tree, dict):
            raise ConfigurationError(f"the filter pattern {_short(text)} is not a JSON object")
        if _depth(tree) > DEPTH_MAX:
            raise ConfigurationError(f"the filter pattern {_short(text)} is nested deeper than {DEPTH_MAX} levels")
        data_key = DATA_KEYS[source_kind]
        if isinstance(tree.get(data_key), list):
            raise ConfigurationError(
                f"the filter pattern {_short(text)} compares {data_key!r} as a whole; a stream's data is filtered by "
                f'its fields, as in {{"{data_key}": {{"field": ["value"]}}}}'
            )
        self.names_data = _names(tree, data_key)
        self._fields = _compile(tree, (), text)

    def matches(self, record: Mapping[str, Json]) -> bool:
        return self._fields(record, record)


class Filters:
    """All patterns of a mapping; a record passes if it matches one of them."""

    def __init__(self, patterns: Iterable[str], source_kind: str = "Kinesis") -> None:
        self._patterns = [Pattern(text, source_kind) for text in patterns]
        self._is_kinesis = source_kind == "Kinesis"

    def __bool__(self) -> bool:
        return bool(self._patterns)

    def passes(self, encoded: bytes) -> bool:
        """Whether the record, given as its entry of an event's ``Records``, is sent to the function."""
        record = _loads(encoded)
        if not self._is_kinesis:
            return any(pattern.matches(record) for pattern in self._patterns)
        fields = {**record, **record["kinesis"]}
        try:
            fields["data"] = _loads(b64decode(fields["data"]))
        except (ValueError, RecursionError):
            del fields["data"]
            return any(not pattern.names_data and pattern.matches(fields) for pattern in self._patterns)
        return any(pattern.matches(fields) for pattern in self._patterns)


# -- compiling -----------------------------------------------------------------------------------------

Node = Callable[[Json, Json], bool]
"""``(the value at this place, the whole record)`` to whether the pattern matches."""
Path = tuple[str, ...]


def _compile(tree: dict[str, Json], path: Path, text: str) -> Node:
    if not tree:
        raise _bad(text, path, "an object must name at least one field")
    tests: list[Node] = []
    for key, rules in tree.items():
        here = (*path, key)
        if key == "$or" and _is_or(rules):
            tests.append(_any_of([_compile(branch, path, text) for branch in rules]))
        elif isinstance(rules, dict):
            tests.append(_inside(key, _compile(rules, here, text)))
        elif isinstance(rules, list):
            tests.append(_leaf(key, here, rules, text))
        else:
            raise _bad(text, here, "a field's rules must be a list or an object")
    return lambda value, root: all(test(value, root) for test in tests)


def _is_or(rules: Json) -> bool:
    """With fewer than two objects, or operators for keys, ``$or`` is a field of that name, as in EventBridge."""
    return (
        isinstance(rules, list)
        and len(rules) >= 2
        and all(isinstance(branch, dict) and not _RESERVED_IN_OR & branch.keys() for branch in rules)
    )


def _any_of(branches: list[Node]) -> Node:
    return lambda value, root: any(branch(value, root) for branch in branches)


def _inside(key: str, node: Node) -> Node:
    def test(value: Json, root: Json) -> bool:
        inner = value.get(key) if isinstance(value, dict) else None
        if isinstance(inner, list) and inner:
            # All fields of the pattern are looked for in the same element.
            return any(node(element, root) for element in _elements(inner))
        return node(inner, root)

    return test


def _leaf(key: str, path: Path, rules: list[Json], text: str) -> Node:
    if not rules:
        raise _bad(text, path, "a list of rules must not be empty")
    absent_matches = any(isinstance(rule, dict) and rule == {"exists": False} for rule in rules)
    leaves = [_rule(rule, path, text) for rule in rules]

    def test(value: Json, root: Json) -> bool:
        found = value.get(key, _MISSING) if isinstance(value, dict) else _MISSING
        if any(leaf(one) for one in _values(found) for leaf in leaves):
            return True
        # A field is absent only if no element of any list above it has it.
        return absent_matches and not _has_leaf(root, path)

    return test


def _elements(value: Json) -> list[Json]:
    """The elements of a list and of the lists in it, in no order; any other value is its own. Data may be nested
    deeper than Python's stack."""
    found, pending = [], [value]
    while pending:
        one = pending.pop()
        if isinstance(one, list):
            pending.extend(one)
        else:
            found.append(one)
    return found


def _values(value: Json) -> list[Json]:
    """The leaves at a place: none for an object or nothing, each element's for a list."""
    return [one for one in _elements(value) if one is not _MISSING and not isinstance(one, dict)]


def _has_leaf(value: Json, path: Path) -> bool:
    if not path:
        return bool(_values(value))
    return any(
        isinstance(one, dict) and path[0] in one and _has_leaf(one[path[0]], path[1:]) for one in _elements(value)
    )


def _rule(rule: Json, path: Path, text: str) -> Callable[[Json], bool]:
    if not isinstance(rule, dict):
        if isinstance(rule, list):
            raise _bad(text, path, "a list of rules must not hold lists")
        return lambda value: _same(value, rule)
    if len(rule) != 1:
        raise _bad(text, path, f"a rule must have exactly one operator, got {sorted(rule) or 'none'}")
    ((operator, operand),) = rule.items()
    match operator:
        case "exists":
            if not isinstance(operand, bool):
                raise _bad(text, path, "'exists' must be true or false")
            return lambda value: operand
        case "prefix" | "suffix" | "equals-ignore-case":
            if not _is_text(operand):
                raise _bad(text, path, f"{operator!r} must have a string")
            return _TEXT_RULES[operator](operand)
        case "anything-but":
            refused = operand if isinstance(operand, list) else [operand]
            if not refused or any(isinstance(one, (dict, list, bool)) or one is None for one in refused):
                raise _bad(text, path, "'anything-but' must have a string, a number or a list of them")
            return lambda value: not any(_same(value, one) for one in refused)
        case "numeric":
            return _numeric(operand, path, text)
    known = "exists, prefix, suffix, equals-ignore-case, anything-but, numeric"
    raise _bad(text, path, f"unknown operator {operator!r}; there are {known}")


_TEXT_RULES: dict[str, Callable[[str], Callable[[Json], bool]]] = {
    "prefix": lambda text: lambda value: _is_text(value) and value.startswith(text),
    "suffix": lambda text: lambda value: _is_text(value) and value.endswith(text),
    "equals-ignore-case": lambda text: lambda value: _is_text(value) and value.lower() == text.lower(),
}


def _numeric(operand: Json, path: Path, text: str) -> Callable[[Json], bool]:
    shape = '\'numeric\' must have one comparison or a range, as in ["=", 5] or [">", 0, "<=", 5]'
    if not isinstance(operand, list) or len(operand) not in (2, 4):
        raise _bad(text, path, shape)
    operators, limits = operand[::2], operand[1::2]
    if any(one not in _COMPARE for one in operators) or any(not isinstance(one, Number) for one in limits):
        raise _bad(text, path, shape)
    if len(operators) == 2 and (
        operators[0] not in (">", ">=") or operators[1] not in ("<", "<=") or float(limits[0]) >= float(limits[1])
    ):
        raise _bad(text, path, "a 'numeric' range must go from its lower to its higher end")
    tests = [(_COMPARE[operator], float(limit)) for operator, limit in zip(operators, limits, strict=True)]
    return lambda value: isinstance(value, Number) and all(compare(float(value), limit) for compare, limit in tests)


def _same(value: Json, expected: Json) -> bool:
    # True == 1 in Python, and a number's text is not the string of the same letters.
    return type(value) is type(expected) and bool(value == expected)


def _is_text(value: Json) -> bool:
    return isinstance(value, str) and not isinstance(value, Number)


def _depth(tree: Json) -> int:
    depth, level = 0, [tree]
    while level:
        depth += 1
        level = [
            inner
            for one in level
            if isinstance(one, (dict, list))
            for inner in (one.values() if isinstance(one, dict) else one)
        ]
    return depth


def _names(tree: Json, key: str) -> bool:
    """Whether the pattern has rules for the field ``key`` of the record."""
    if key in tree:
        return True
    return _is_or(tree.get("$or")) and any(_names(branch, key) for branch in tree["$or"])


def _constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _loads(text: str | bytes) -> Json:
    return json.loads(text, parse_int=Number, parse_float=Number, parse_constant=_constant)


def _bad(text: str, path: Path, problem: str) -> ConfigurationError:
    return ConfigurationError(
        f"the filter pattern {_short(text)} is not valid at {'.'.join(path) or 'its top'}: {problem}"
    )


def _short(text: str) -> str:
    return text if len(text) <= 120 else f"{text[:117]}..."
