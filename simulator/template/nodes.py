"""A template's text as dicts and lists that know their lines.

JSON templates are read as the YAML that they also are. CloudFormation's short tags become their long forms
(``!Ref x`` is ``{"Ref": "x"}``, ``!GetAtt a.b`` is ``{"Fn::GetAtt": ["a", "b"]}``), so only those are met later.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from simulator.template.errors import TemplateError

MAX_TEMPLATE_BYTES = 1_000_000  # CloudFormation takes 1 MB (template body in S3)
_PLAIN_TAGS = {"Ref": "Ref", "Condition": "Condition"}


class MapNode(dict[str, Any]):
    """A mapping; ``line`` is its own, ``lines`` those of its keys."""

    def __init__(self, line: int) -> None:
        super().__init__()
        self.line = line
        self.lines: dict[str, int] = {}

    def line_of(self, key: str) -> int:
        return self.lines.get(key, self.line)


class ListNode(list[Any]):
    """A sequence that knows its line."""

    def __init__(self, line: int) -> None:
        super().__init__()
        self.line = line


def load(path: Path) -> MapNode:
    """The template at ``path``.

    :raises TemplateError: unreadable, too large, not YAML, or not a mapping with Resources.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        advice = "give a template with --template" if isinstance(error, FileNotFoundError) else ""
        raise TemplateError(f"cannot read the template: {error.strerror}", path, 0, advice) from None
    if len(raw) > MAX_TEMPLATE_BYTES:
        raise TemplateError(f"the template has {len(raw):,} bytes", path, 0, "CloudFormation takes 1 MB at most")
    try:
        node = yaml.compose(raw.decode("utf-8"), Loader=yaml.SafeLoader)
        tree = _convert(node, path, 0) if node is not None else None
    except UnicodeDecodeError:
        raise TemplateError("the template is not UTF-8 text", path, 0, "is it a template?") from None
    except RecursionError:
        raise TemplateError("the template is nested too deeply", path, 0) from None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        raise TemplateError(f"not valid YAML: {error.problem}", path, line) from None
    except yaml.YAMLError as error:
        raise TemplateError(f"not valid YAML: {str(error).splitlines()[0]}", path, 0) from None
    if not isinstance(tree, MapNode) or not isinstance(tree.get("Resources"), MapNode):
        raise TemplateError(
            "this is not a SAM or CloudFormation template", path, 1, "it needs a mapping named Resources"
        )
    return tree


def _convert(node: yaml.Node, path: Path, depth: int) -> Any:
    line = node.start_mark.line + 1
    if depth > 60:
        raise RecursionError
    tag = node.tag
    if tag.startswith("!") and tag != "!":
        name = tag[1:]
        value = _value(node, path, depth)
        if name == "GetAtt" and isinstance(value, str):
            parts = ListNode(line)
            parts.extend(value.split(".", 1))
            value = parts
        wrapped = MapNode(line)
        key = _PLAIN_TAGS.get(name, f"Fn::{name}")
        wrapped[key] = value
        wrapped.lines[key] = line
        return wrapped
    return _value(node, path, depth)


def _value(node: yaml.Node, path: Path, depth: int) -> Any:
    line = node.start_mark.line + 1
    if isinstance(node, yaml.MappingNode):
        mapping = MapNode(line)
        for key_node, value_node in node.value:
            key = str(key_node.value)
            if key in mapping:
                raise TemplateError(f"the key {key} is given twice", path, key_node.start_mark.line + 1)
            mapping[key] = _convert(value_node, path, depth + 1)
            mapping.lines[key] = key_node.start_mark.line + 1
        return mapping
    if isinstance(node, yaml.SequenceNode):
        sequence = ListNode(line)
        sequence.extend(_convert(item, path, depth + 1) for item in node.value)
        return sequence
    tag = node.tag if node.tag.startswith("tag:yaml.org") else "tag:yaml.org,2002:str"
    if tag.endswith(":timestamp"):
        # Versions such as 2010-09-09 look like dates to YAML.
        return str(node.value)
    plain = yaml.ScalarNode(tag, node.value, node.start_mark, node.end_mark)
    return yaml.SafeLoader("").construct_object(plain, deep=True)
