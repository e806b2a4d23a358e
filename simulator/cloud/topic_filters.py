"""Topics and topic filters, as IoT Core takes them, and a tree that finds the filters of a topic.

``+`` stands for one level, ``#`` for the rest, which has to be at least one level: where the MQTT standard lets
``sensor/#`` match ``sensor``, IoT Core does not (developer guide, *MQTT topics*). Neither stands for the first level
of a topic that begins with ``$``.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

from simulator.cloud import limits

V = TypeVar("V")

_MAX_BYTES = int(limits.IOT_TOPIC_MAX_BYTES)
_MAX_SLASHES = int(limits.IOT_TOPIC_MAX_SLASHES)
_RULES = "$aws/rules/"


def problem_with_topic(topic: str) -> str | None:
    """Why nothing can be published to ``topic``; None when it can."""
    if "+" in topic or "#" in topic:
        return f"{topic!r}: a topic to publish to has no wildcards"
    return _problem(topic)


def problem_with_filter(topic_filter: str) -> str | None:
    """Why ``topic_filter`` cannot be subscribed to; None when it can."""
    levels = topic_filter.split("/")
    for index, level in enumerate(levels):
        if "+" in level and level != "+":
            return f"{topic_filter!r}: + stands alone in its level"
        if "#" in level and (level != "#" or index != len(levels) - 1):
            return f"{topic_filter!r}: # stands alone in the last level"
    return _problem(topic_filter)


def _problem(text: str) -> str | None:
    if not text:
        return "a topic has at least one character"
    if "\0" in text:
        return f"{text!r}: a topic has no NUL character"
    if text.startswith(_RULES):
        # $aws/rules/NAME/ are not counted.
        text = text[len(_RULES) :].partition("/")[2]
    size = len(text) if text.isascii() else len(text.encode(errors="surrogatepass"))
    if size > _MAX_BYTES:
        return f"a topic of {size} bytes; {_MAX_BYTES} are allowed"
    slashes = text.count("/")
    if slashes > _MAX_SLASHES:
        return f"{text!r} has {slashes} slashes; {_MAX_SLASHES} are allowed"
    return None


def matches(topic_filter: str, topic: str) -> bool:
    """Whether ``topic_filter`` matches ``topic``; both are valid."""
    wanted, found = topic_filter.split("/"), topic.split("/")
    if topic.startswith("$") and wanted[0] in ("+", "#"):
        return False
    for index, level in enumerate(wanted):
        if level == "#":
            return len(found) > index
        if index >= len(found) or level not in ("+", found[index]):
            return False
    return len(wanted) == len(found)


class _Node(Generic[V]):
    __slots__ = ("children", "values")

    def __init__(self) -> None:
        self.children: dict[str, _Node[V]] = {}
        self.values: dict[Hashable, V] = {}


class FilterTree(Generic[V]):
    """Values by topic filter. :meth:`match` costs O(levels of the topic) however many filters there are.

    Filters without wildcards, which most are, are kept apart in one dict.
    """

    __slots__ = ("_exact", "_root", "_wild")

    def __init__(self) -> None:
        self._exact: dict[str, dict[Hashable, V]] = {}
        self._root: _Node[V] = _Node()
        self._wild = 0

    def add(self, topic_filter: str, key: Hashable, value: V) -> None:
        """Set ``value`` for ``key`` under a valid filter."""
        if not _is_wild(topic_filter):
            self._exact.setdefault(topic_filter, {})[key] = value
            return
        node = self._root
        for level in topic_filter.split("/"):
            node = node.children.setdefault(level, _Node())
        if key not in node.values:
            self._wild += 1
        node.values[key] = value

    def remove(self, topic_filter: str, key: Hashable) -> None:
        """Take ``key`` out again; nothing happens when it is not there."""
        if not _is_wild(topic_filter):
            values = self._exact.get(topic_filter)
            if values is not None:
                values.pop(key, None)
                if not values:
                    del self._exact[topic_filter]
            return
        path: list[tuple[_Node[V], str]] = []
        node = self._root
        for level in topic_filter.split("/"):
            below = node.children.get(level)
            if below is None:
                return
            path.append((node, level))
            node = below
        if key not in node.values:
            return
        del node.values[key]
        self._wild -= 1
        for parent, level in reversed(path):
            if parent.children[level].values or parent.children[level].children:
                break
            del parent.children[level]

    @property
    def is_empty(self) -> bool:
        """Whether nothing is kept, not even the inside of a filter that is gone."""
        return not self._exact and not self._root.children

    def match(self, topic: str) -> list[V]:
        """The values of every filter that matches a valid topic."""
        exact = self._exact.get(topic)
        found = list(exact.values()) if exact else []
        if self._wild:
            levels = topic.split("/")
            nodes = [self._root]
            for index, level in enumerate(levels):
                below: list[_Node[V]] = []
                for node in nodes:
                    children = node.children
                    if index or not topic.startswith("$"):
                        if (rest := children.get("#")) is not None:
                            found += rest.values.values()
                        if (one := children.get("+")) is not None:
                            below.append(one)
                    if (named := children.get(level)) is not None:
                        below.append(named)
                nodes = below
                if not nodes:
                    break
            for node in nodes:
                found += node.values.values()
        return found


def _is_wild(topic_filter: str) -> bool:
    return "+" in topic_filter or "#" in topic_filter
