"""What the SQL of a rule is evaluated on, and what a statement is once it is compiled. No I/O, no clock."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import orjson

from simulator.cloud.iot_sql_values import UNDEFINED, to_json

FIRST_VERSION: Final = "2015-10-08"
VERSIONS: Final = (FIRST_VERSION, "2016-03-23", "beta")


class SqlError(ValueError):
    """A statement or template that IoT Core would refuse with SqlParseException."""


class NotJsonError(Exception):
    """The statement looks into a payload that is no JSON: IoT Core counts a ParseError."""


@dataclass(frozen=True, slots=True)
class Message:
    """A publish as rules see it. ``topic`` is without the prefix of Basic Ingest; ``timestamp_ms`` of its arrival."""

    topic: str
    payload: bytes
    client_id: str
    timestamp_ms: int
    qos: int = 0
    principal: str = ""
    depth: int = 0
    """How many Republish actions it has been through."""


class Context:
    """One message being evaluated, its payload parsed at most once."""

    __slots__ = ("_document", "_outer", "_trace_id", "message")

    def __init__(self, message: Message) -> None:
        self.message = message
        self._document: Any = self
        self._outer: Context | None = None
        self._trace_id = ""

    @property
    def document(self) -> Any:
        """The payload as JSON. :raises NotJsonError:"""
        if self._document is self:
            try:
                self._document = orjson.loads(self.message.payload)
            except orjson.JSONDecodeError as error:
                raise NotJsonError(str(error)) from None
        return self._document

    @property
    def trace_id(self) -> str:
        if self._outer is not None:
            return self._outer.trace_id
        if not self._trace_id:
            self._trace_id = str(uuid.uuid4())
        return self._trace_id

    def within(self, document: Any) -> Context:
        """The same message, where names are those of ``document``: what a nested query selects from."""
        inner = Context(self.message)
        inner._document = document
        inner._outer = self
        return inner


Compiled = Callable[[Context], Any]


@dataclass(frozen=True, slots=True)
class Item:
    """One item of SELECT: ``path`` is where its value goes in the result, one name for each level."""

    path: tuple[str, ...]
    value: Compiled


@dataclass(frozen=True, slots=True)
class Selection:
    """What stands between SELECT and FROM, and the condition after WHERE."""

    star: bool
    items: tuple[Item, ...]
    bare: Compiled | None
    where: Compiled | None

    def holds(self, context: Context) -> bool:
        return self.where is None or self.where(context) is True

    def of(self, context: Context) -> Any:
        """The result for what ``context`` has as its document. :raises NotJsonError:"""
        if self.bare is not None:
            return self.bare(context)
        if self.star and not self.items:
            return context.document
        result: dict[str, Any] = {}
        if self.star:
            document = context.document
            if not isinstance(document, dict):
                raise NotJsonError("the payload is no JSON object")
            result.update(document)
        for item in self.items:
            value = item.value(context)
            if value is not UNDEFINED:
                _put(result, item.path, value)
        return result


def _put(result: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    """``AS a.b`` makes an object ``a`` with a member ``b``, as rules that write to shadows rely on."""
    for name in path[:-1]:
        inner = result.get(name)
        # A copy, since what * gave belongs to the message.
        result[name] = dict(inner) if isinstance(inner, dict) else {}
        result = result[name]
    result[path[-1]] = value


@dataclass(frozen=True, slots=True)
class Statement:
    """A compiled statement. ``topic_filter`` is empty without FROM, which only Basic Ingest can reach."""

    topic_filter: str
    selection: Selection

    def evaluate(self, context: Context) -> bytes | None:
        """The outgoing payload; None when WHERE does not hold. :raises NotJsonError:"""
        try:
            if not self.selection.holds(context):
                return None
        except NotJsonError:
            # A condition on fields that are not there is Undefined.
            return None
        if self.selection.star and not self.selection.items:
            return context.message.payload
        value = self.selection.of(context)
        try:
            # What is Undefined by itself is an empty string (iot-sql-data-types).
            return b"" if value is UNDEFINED else to_json(value)
        except TypeError as error:
            raise NotJsonError(str(error)) from None


def query(selection: Selection, source: Compiled) -> Compiled:
    """A nested SELECT (iot-sql-nested-queries): an array of one result for each element, or the result of an object."""

    def select(context: Context) -> Any:
        found = source(context)
        if found is UNDEFINED:
            return UNDEFINED
        results = [_result(selection, context.within(one)) for one in (found if isinstance(found, list) else [found])]
        if isinstance(found, list):
            return [one for one in results if one is not UNDEFINED]
        return results[0]

    return select


def _result(selection: Selection, context: Context) -> Any:
    try:
        return selection.of(context) if selection.holds(context) else UNDEFINED
    except NotJsonError:
        # An element that is no object has nothing to add items to.
        return UNDEFINED
