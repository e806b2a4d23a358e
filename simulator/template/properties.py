"""Checked access to resolved properties: every error names the resource, the property, its line and what to do."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path

from simulator.template.errors import TemplateError
from simulator.template.intrinsics import scalar_text
from simulator.template.nodes import ListNode, MapNode


class Properties:
    """A mapping of one resource. ``what`` names it in errors; ``kind`` is the resource's type."""

    __slots__ = ("file", "kind", "values", "what")

    def __init__(self, file: Path, kind: str, what: str, values: MapNode) -> None:
        self.file, self.kind, self.what, self.values = file, kind, what, values

    def __contains__(self, key: str) -> bool:
        return key in self.values

    @property
    def line(self) -> int:
        return self.values.line

    def error(self, key: str, problem: str, advice: str = "") -> TemplateError:
        """An error at the line of ``key``, or of the whole when it is not there."""
        return TemplateError(f"{self.what}: {problem}", self.file, self.values.line_of(key), advice)

    def only(self, known: Collection[str]) -> Properties:
        """Itself, when it has no other keys than ``known``."""
        for key in self.values:
            if key not in known:
                raise self.error(key, f"the property {key} is not supported", f"understood are {', '.join(known)}")
        return self

    def require(self, *keys: str) -> None:
        for key in keys:
            if key not in self.values:
                raise self.error(key, f"{key} is missing")

    def text(self, key: str, default: str | None = None) -> str:
        """A text; numbers and truth values as CloudFormation writes them. Without ``default`` it must be there."""
        if key not in self.values and default is not None:
            return default
        self.require(key)
        text = scalar_text(self.values[key])
        if text is None:
            raise self.error(key, f"{key} must be a text")
        return text

    def one_of(self, key: str, known: Collection[str], default: str | None = None) -> str:
        text = self.text(key, default)
        if text not in known:
            raise self.error(key, f"{key} must be {' or '.join(known)}, not {text[:80]!r}")
        return text

    def whole(self, key: str, low: int, high: int, default: int | None = None) -> int:
        """A whole number from ``low`` to ``high``, given as a number or as a text."""
        if key not in self.values and default is not None:
            return default
        text = self.text(key).strip()
        number = int(text.partition(".")[0]) if re.fullmatch(r"[+-]?[0-9]{1,18}(\.0+)?", text) else None
        if number is None or isinstance(self.values[key], bool) or not low <= number <= high:
            raise self.error(key, f"{key} must be a whole number from {low:,} to {high:,}, not {text[:80]!r}")
        return number

    def flag(self, key: str, default: bool) -> bool:
        text = self.text(key, "true" if default else "false").lower()
        if text not in ("true", "false"):
            raise self.error(key, f"{key} must be true or false, not {text[:80]!r}")
        return text == "true"

    def part(self, key: str, known: Collection[str] | None = None) -> Properties:
        """The mapping under ``key``, empty when it is not there. ``known`` as in :meth:`only`."""
        value = self.values.get(key, MapNode(self.values.line_of(key)))
        if not isinstance(value, MapNode):
            raise self.error(key, f"{key} must be a mapping")
        part = Properties(self.file, self.kind, f"{self.what} {key}", value)
        return part if known is None else part.only(known)

    def parts(self, key: str, known: Collection[str]) -> list[Properties]:
        """The list of mappings under ``key``, empty when it is not there."""
        value = self.values.get(key, ListNode(0))
        if not isinstance(value, ListNode) or not all(isinstance(one, MapNode) for one in value):
            raise self.error(key, f"{key} must be a list of mappings")
        return [
            Properties(self.file, self.kind, f"{self.what} {key}[{number}]", one).only(known)
            for number, one in enumerate(value)
        ]

    def texts(self, key: str) -> list[str]:
        value = self.values.get(key, ListNode(0))
        texts = [scalar_text(one) for one in value] if isinstance(value, ListNode) else [None]
        if None in texts:
            raise self.error(key, f"{key} must be a list of texts")
        return [text for text in texts if text is not None]
