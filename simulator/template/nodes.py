"""A template's text as dicts and lists that know their lines.

JSON templates are read as the YAML that they also are. CloudFormation's short tags become their long forms
(``!Ref x`` is ``{"Ref": "x"}``, ``!GetAtt a.b`` is ``{"Fn::GetAtt": ["a", "b"]}``), so only those are met later.
Anchors and merge keys work, as they do in ``sam build``; the values of a tree are :class:`MapNode`,
:class:`ListNode`, str, int, float and bool, never None (CloudFormation refuses null values too).
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from simulator.template.errors import TemplateError

MAX_TEMPLATE_BYTES = 1_000_000  # CloudFormation takes 1 MB (template body in S3)
MAX_DEPTH = 60
MAX_NODES = 200_000  # far above what 1 MB of honest text holds; anchors can multiply without end
_NO_TEMPLATE = "not a SAM or CloudFormation template"
_NEEDS = "it needs a mapping named Resources"
_PLAIN_TAGS = {"Ref": "Ref", "Condition": "Condition"}
_MERGE = "tag:yaml.org,2002:merge"


class MapNode(dict[str, Any]):
    """A mapping; ``line`` is its own, ``lines`` those of its keys."""

    def __init__(self, line: int) -> None:
        super().__init__()
        self.line = line
        self.lines: dict[str, int] = {}

    def line_of(self, key: str) -> int:
        """Where ``key`` stands; the mapping's own line when it has no such key."""
        return self.lines.get(key, self.line)

    def put(self, key: str, value: Any, line: int) -> None:
        self[key] = value
        self.lines[key] = line

    def without(self, keys: tuple[str, ...]) -> MapNode:
        """A copy that lacks ``keys``."""
        kept = MapNode(self.line)
        for key, value in self.items():
            if key not in keys:
                kept.put(key, value, self.line_of(key))
        return kept


class ListNode(list[Any]):
    """A sequence that knows its line."""

    def __init__(self, line: int, items: list[Any] | None = None) -> None:
        super().__init__(items or ())
        self.line = line


def load(path: Path) -> MapNode:
    """The template at ``path``, for reading only: the same text gives the same tree.

    :raises TemplateError: unreadable, too large, not YAML or JSON, or not a mapping.
    """
    return _tree(_text(path), path)


# Who searches for sizes reads one template hundreds of times, and parsing it takes most of that.
@lru_cache(maxsize=4)
def _tree(text: str, path: Path) -> MapNode:
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        if node is None:
            raise TemplateError(f"this is {_NO_TEMPLATE}: it is empty", path, 0, _NEEDS)
        tree = _Converter(path).convert(node, 0)
    except RecursionError:
        raise TemplateError("the template is nested too deeply", path, 0, f"keep it below {MAX_DEPTH} levels") from None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        raise TemplateError(f"not valid YAML: {error.problem or error.context}", path, line) from None
    except yaml.YAMLError as error:
        raise TemplateError(f"not valid YAML: {str(error).splitlines()[0]}", path, 0, "is it a template?") from None
    if not isinstance(tree, MapNode):
        raise TemplateError(f"this is {_NO_TEMPLATE}", path, 1, _NEEDS)
    return tree


def _text(path: Path) -> str:
    try:
        size = path.stat().st_size
        if not path.is_file():
            raise TemplateError("the template is not a file", path, 0, "name the template itself")
        if size > MAX_TEMPLATE_BYTES:
            raise TemplateError(f"the template has {size:,} bytes", path, 0, "CloudFormation takes 1 MB at most")
        raw = path.read_bytes()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        advice = "give a template with --template" if isinstance(error, FileNotFoundError) else "is it a template?"
        raise TemplateError(f"cannot read the template: {reason}", path, 0, advice) from None
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise TemplateError("the template is not UTF-8 text", path, 0, "is it a template?") from None
    # JSON may be indented with tabs, YAML not. Inside JSON's strings a tab is always escaped.
    return text.replace("\t", " ") if text.lstrip()[:1] == "{" else text


class _Converter:
    """Composed YAML nodes to plain values with lines, within bounds of depth and number."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.count = 0
        self.scalars = yaml.SafeLoader("")

    def convert(self, node: yaml.Node, depth: int) -> Any:
        line = node.start_mark.line + 1
        self.count += 1
        if depth > MAX_DEPTH:
            raise RecursionError
        if self.count > MAX_NODES:
            raise TemplateError("the template's anchors multiply without end", self.path, line, "write them out")
        if not node.tag.startswith("!") or node.tag == "!":
            return self._value(node, line, depth)
        name = node.tag[1:]
        value = self._value(node, line, depth)
        if name == "GetAtt" and isinstance(value, str):
            value = ListNode(line, list(value.split(".", 1)))
        wrapped = MapNode(line)
        wrapped.put(_PLAIN_TAGS.get(name, f"Fn::{name}"), value, line)
        return wrapped

    def _value(self, node: yaml.Node, line: int, depth: int) -> Any:
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, line, depth)
        if isinstance(node, yaml.SequenceNode):
            return ListNode(line, [self.convert(item, depth + 1) for item in node.value])
        tag = node.tag if node.tag.startswith("tag:yaml.org") else "tag:yaml.org,2002:str"
        if tag.endswith((":str", ":timestamp", ":value")):
            # Versions such as 2010-09-09 look like dates to YAML; JSON may escape one character as two surrogates.
            return str(node.value).encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        try:
            value = self.scalars.construct_object(yaml.ScalarNode(tag, node.value, node.start_mark, node.end_mark))
        except ValueError:
            raise TemplateError(f"{node.value!r} is not {_kind(tag)}", self.path, line) from None
        if value is None:
            raise TemplateError("null values are not allowed", self.path, line, "give a value, or remove the key")
        if not isinstance(value, str | int | float):
            raise TemplateError(f"{_kind(tag)} is not supported", self.path, line, "write plain text or a number")
        return value

    def _mapping(self, node: yaml.MappingNode, line: int, depth: int) -> MapNode:
        own, merged = MapNode(line), MapNode(line)
        for key_node, value_node in node.value:
            key_line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                raise TemplateError("a key must be plain text", self.path, key_line)
            value = self.convert(value_node, depth + 1)
            if key_node.tag == _MERGE:
                for one in value if isinstance(value, ListNode) else [value]:
                    if not isinstance(one, MapNode):
                        raise TemplateError("<< takes a mapping, or a list of them", self.path, key_line)
                    for key in one:
                        if key not in merged:
                            merged.put(key, one[key], one.line_of(key))
                continue
            key = str(key_node.value)
            if key in own:
                raise TemplateError(f"the key {key} is given twice", self.path, key_line, "remove one of them")
            own.put(key, value, key_line)
        for key in merged:
            if key not in own:
                own.put(key, merged[key], merged.line_of(key))
        return own


def _kind(tag: str) -> str:
    name = tag.rpartition(":")[2]
    return {"int": "a whole number", "float": "a number", "bool": "true or false"}.get(name, f"!!{name}")
