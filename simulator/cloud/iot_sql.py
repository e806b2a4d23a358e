"""The SQL of IoT Core's rules, version 2016-03-23 (developer guide, *AWS IoT SQL reference*). No I/O, no clock.

A statement is compiled once into closures over a :class:`Context`, one for each message. The payload is parsed only
when something looks into it, so ``SELECT * FROM 'topic'`` passes any bytes on as they are, at no cost.

``Undefined`` is the value of whatever is not there. Comparing or computing with it gives Undefined again, a WHERE that
is Undefined does not match, and an Undefined item is left out of the result. What is not simulated (shadows, machine
learning, protobuf, the other services that some functions ask) is refused when the rule is made, by name.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

from simulator.cloud.iot_sql_values import (
    ARITHMETIC,
    COMPARISONS,
    DECIMALS,
    DIGITS,
    UNDEFINED,
    both,
    either,
    equal,
    is_in,
    to_boolean,
    to_int,
    to_json,
    to_text,
)
from simulator.cloud.topic_filters import problem_with_filter

__all__ = [
    "UNDEFINED",
    "VERSIONS",
    "Compiled",
    "Context",
    "Item",
    "Message",
    "NotJsonError",
    "SqlError",
    "Statement",
    "get",
    "parse",
    "parse_expression",
    "to_text",
]

VERSIONS: Final = ("2015-10-08", "2016-03-23", "beta")


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

    __slots__ = ("_document", "_trace_id", "message")

    def __init__(self, message: Message) -> None:
        self.message = message
        self._document: Any = self
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
        if not self._trace_id:
            self._trace_id = str(uuid.uuid4())
        return self._trace_id


Compiled = Callable[[Context], Any]


@dataclass(frozen=True, slots=True)
class Item:
    """One item of SELECT: ``name`` is where its value goes in the result."""

    name: str
    value: Compiled


@dataclass(frozen=True, slots=True)
class Statement:
    """A compiled SELECT. ``topic_filter`` is empty without FROM, which only Basic Ingest can reach."""

    topic_filter: str
    star: bool
    items: tuple[Item, ...]
    bare: Compiled | None
    where: Compiled | None

    def evaluate(self, context: Context) -> bytes | None:
        """The outgoing payload; None when WHERE does not hold. :raises NotJsonError:"""
        if self.where is not None:
            try:
                if self.where(context) is not True:
                    return None
            except NotJsonError:
                # A condition on fields that are not there is Undefined.
                return None
        if self.bare is not None:
            return _encode(self.bare(context))
        if self.star and not self.items:
            return context.message.payload
        result: dict[str, Any] = {}
        if self.star:
            document = context.document
            if not isinstance(document, dict):
                raise NotJsonError("the payload is no JSON object")
            result.update(document)
        for item in self.items:
            value = item.value(context)
            if value is not UNDEFINED:
                result[item.name] = value
        return _encode(result)


def _encode(value: Any) -> bytes:
    """As JSON; what is Undefined by itself is an empty string (*Data types*). :raises NotJsonError: if too deep"""
    try:
        return b"" if value is UNDEFINED else to_json(value)
    except TypeError as error:
        raise NotJsonError(str(error)) from None


def parse(sql: str, version: str = "2015-10-08") -> Statement:
    """:raises SqlError: with where the statement stops making sense."""
    if version not in VERSIONS:
        raise SqlError(f"awsIotSqlVersion {version!r}; there are {', '.join(VERSIONS)}")
    return _Parser(sql).statement()


def parse_expression(text: str) -> Compiled:
    """What stands between ``${`` and ``}``. :raises SqlError:"""
    parser = _Parser(text)
    found = parser.expression()
    parser.expect_end()
    return found


# -- the text ------------------------------------------------------------------------------------------

_TOKEN = re.compile(
    r"\s*(?:(?P<number>\d+(?:\.\d*)?(?:[eE][+-]?\d+)?|\.\d+)|'(?P<string>(?:[^']|'')*)'|\"(?P<quoted>[^\"]*)\""
    r"|(?P<name>[A-Za-z_][A-Za-z0-9_]*)|(?P<mark><>|<=|>=|[-+*/%=<>(),.;{}:\[\]]))"
)
_WORDS = frozenset(
    [
        "select",
        "from",
        "where",
        "as",
        "and",
        "or",
        "not",
        "in",
        "case",
        "when",
        "then",
        "else",
        "end",
        "true",
        "false",
        "null",
        "value",
    ]
)
_CLAUSES = ("from", "where", "as")
_DEEPEST = 50


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    at: int

    @property
    def word(self) -> str:
        return self.text.lower() if self.kind == "name" and self.text.lower() in _WORDS else ""


def _tokens(text: str) -> list[_Token]:
    found: list[_Token] = []
    at = 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            if not text[at:].strip():
                break
            raise SqlError(f"{text[at : at + 20]!r} at position {at} cannot be read")
        kind = match.lastgroup or ""
        value = match[kind]
        found.append(_Token(kind, value.replace("''", "'") if kind == "string" else value, match.start(kind)))
        at = match.end()
    found.append(_Token("end", "", len(text)))
    return found


class _Parser:
    """Recursive descent, one method for each level of precedence."""

    def __init__(self, text: str) -> None:
        self._tokens = _tokens(text)
        self._at = 0
        self._depth = 0

    # -- tokens ----------------------------------------------------------------------------------------

    @property
    def _now(self) -> _Token:
        return self._tokens[self._at]

    def _next(self) -> _Token:
        token = self._now
        self._at += 1
        return token

    def _word(self, *words: str) -> bool:
        if self._now.word in words:
            self._at += 1
            return True
        return False

    def _mark(self, mark: str) -> bool:
        if self._now.kind == "mark" and self._now.text == mark:
            self._at += 1
            return True
        return False

    def _expect(self, mark: str) -> None:
        if not self._mark(mark):
            raise self._wrong(f"{mark!r} is missing")

    def _wrong(self, problem: str) -> SqlError:
        token = self._now
        where = "at the end" if token.kind == "end" else f"at {token.text!r}, position {token.at}"
        return SqlError(f"{problem} {where}")

    def expect_end(self) -> None:
        self._mark(";")
        if self._now.kind != "end":
            raise self._wrong("nothing more is expected")

    # -- the statement ---------------------------------------------------------------------------------

    def statement(self) -> Statement:
        if not self._word("select"):
            raise self._wrong("a statement begins with SELECT, not")
        star, items, bare = False, [], None
        if self._word("value"):
            bare = (lambda context: context.document) if self._mark("*") else self.expression()
        else:
            while True:
                if self._mark("*"):
                    star = True
                else:
                    items.append(self._item())
                if not self._mark(","):
                    break
        topic_filter = ""
        if self._word("from"):
            token = self._next()
            if token.kind not in ("string", "quoted"):
                raise SqlError(f"FROM takes a topic filter in quotes, not {token.text!r}")
            topic_filter = token.text
            problem = problem_with_filter(topic_filter)
            if problem is not None:
                raise SqlError(f"FROM {problem}")
        where = self.expression() if self._word("where") else None
        self.expect_end()
        return Statement(topic_filter, star, tuple(items), bare, where)

    def _item(self) -> Item:
        start = self._at
        value = self.expression()
        if self._word("as"):
            token = self._next()
            if token.kind not in ("name", "quoted", "string") or token.word in _CLAUSES:
                raise SqlError(f"AS takes a name, not {token.text!r}")
            return Item(token.text, value)
        # Without AS the last name of a path, or the function's, is the name.
        names = [one.text for one in self._tokens[start : self._at] if one.kind in ("name", "quoted")]
        if not names:
            raise self._wrong("an item that is no field needs AS")
        is_call = self._tokens[start + 1].text == "(" if self._at > start + 1 else False
        return Item(names[0] if is_call else names[-1], value)

    # -- expressions -----------------------------------------------------------------------------------

    def expression(self) -> Compiled:
        self._depth += 1
        if self._depth > _DEEPEST:
            raise SqlError(f"an expression is nested more than {_DEEPEST} deep")
        found = self._or()
        self._depth -= 1
        return found

    def _or(self) -> Compiled:
        left = self._and()
        while self._word("or"):
            left = _logical(either, left, self._and())
        return left

    def _and(self) -> Compiled:
        left = self._not()
        while self._word("and"):
            left = _logical(both, left, self._not())
        return left

    def _not(self) -> Compiled:
        count = 0
        while self._word("not"):
            count += 1
        found = self._comparison()
        return _negated(found) if count % 2 else found

    def _comparison(self) -> Compiled:
        left = self._sum()
        if self._now.kind == "mark" and self._now.text in COMPARISONS:
            compare = COMPARISONS[self._next().text]
            return _binary(compare, left, self._sum())
        if self._word("in"):
            return _binary(is_in, left, self._sum())
        return left

    def _sum(self) -> Compiled:
        left = self._product()
        while self._now.kind == "mark" and self._now.text in ("+", "-"):
            left = _binary(ARITHMETIC[self._next().text], left, self._product())
        return left

    def _product(self) -> Compiled:
        left = self._unary()
        while self._now.kind == "mark" and self._now.text in ("*", "/", "%"):
            left = _binary(ARITHMETIC[self._next().text], left, self._unary())
        return left

    def _unary(self) -> Compiled:
        count = 0
        while self._mark("-"):
            count += 1
        found = self._path()
        return _binary(ARITHMETIC["-"], _constant(0), found) if count % 2 else found

    def _path(self) -> Compiled:
        found = self._primary()
        while True:
            if self._mark("."):
                token = self._next()
                if token.kind not in ("name", "quoted") or token.word in _CLAUSES:
                    raise SqlError(f"a field's name is expected after the dot, not {token.text!r}")
                found = _field(found, token.text)
            elif self._mark("["):
                index = self.expression()
                self._expect("]")
                found = _binary(get, found, index)
            else:
                return found

    def _primary(self) -> Compiled:
        token = self._now
        if self._word("case"):
            return self._case()
        if self._word("true", "false", "null"):
            return _constant({"true": True, "false": False, "null": None}[token.word])
        if token.word:
            raise self._wrong("a value is expected, not")
        self._at += 1
        match token.kind:
            case "number":
                return _constant(self._number(token.text))
            case "string":
                return _constant(token.text)
            case "name" if self._mark("("):
                return self._call(token.text)
            case "name" | "quoted":
                return _field(_whole, token.text)
        if token.text == "(":
            found = self.expression()
            self._expect(")")
            return found
        if token.text == "[":
            return _array(self._list("]"))
        if token.text == "{":
            return self._object()
        self._at -= 1
        raise self._wrong("a value is expected, not")

    def _number(self, text: str) -> Any:
        try:
            return int(text) if text.isdigit() and len(text) <= DIGITS else DECIMALS.create_decimal(text)
        except ArithmeticError:
            raise SqlError(f"the number {text} is larger than a Decimal can be") from None

    def _list(self, end: str) -> list[Compiled]:
        found: list[Compiled] = []
        if self._mark(end):
            return found
        while True:
            found.append(self.expression())
            if self._mark(end):
                return found
            self._expect(",")

    def _object(self) -> Compiled:
        members: list[tuple[str, Compiled]] = []
        while not self._mark("}"):
            token = self._next()
            if token.kind not in ("string", "quoted", "name"):
                raise SqlError(f"a member's name is expected, not {token.text!r}")
            self._expect(":")
            members.append((token.text, self.expression()))
            if not self._mark(","):
                self._expect("}")
                break

        def build(context: Context) -> Any:
            values = [(name, value(context)) for name, value in members]
            return {name: value for name, value in values if value is not UNDEFINED}

        return build

    def _case(self) -> Compiled:
        subject = None if self._now.word == "when" else self.expression()
        branches: list[tuple[Compiled, Compiled]] = []
        while self._word("when"):
            condition = self.expression()
            if not self._word("then"):
                raise self._wrong("THEN is missing")
            value = self.expression()
            branches.append((condition if subject is None else _binary(equal, subject, condition), value))
        otherwise = self.expression() if self._word("else") else _constant(UNDEFINED)
        if not branches or not self._word("end"):
            raise self._wrong("CASE needs WHEN ... THEN ... END;")

        def choose(context: Context) -> Any:
            for condition, value in branches:
                if condition(context) is True:
                    return value(context)
            return otherwise(context)

        return choose

    def _call(self, name: str) -> Compiled:
        from simulator.cloud.iot_sql_functions import compile_call

        if name.lower() == "encode" and self._mark("*"):
            # encode(*, 'base64') is of the payload's bytes, which need be no JSON.
            arguments: list[Compiled] = [lambda context: context.message.payload]
            if self._mark(","):
                arguments += self._list(")")
            else:
                self._expect(")")
        elif self._mark("*"):
            self._expect(")")
            arguments = [_whole]
        else:
            arguments = self._list(")")
        return compile_call(name, arguments)


# -- values --------------------------------------------------------------------------------------------


def _whole(context: Context) -> Any:
    return context.document


def _constant(value: Any) -> Compiled:
    return lambda context: value


def _field(of: Compiled, name: str) -> Compiled:
    def read(context: Context) -> Any:
        found = of(context)
        return found.get(name, UNDEFINED) if isinstance(found, dict) else UNDEFINED

    return read


def _array(parts: Sequence[Compiled]) -> Compiled:
    return lambda context: [value for value in (part(context) for part in parts) if value is not UNDEFINED]


def get(of: Any, index: Any) -> Any:
    """A member of an object, an element of an array or a character, counted from 0; else Undefined."""
    if isinstance(of, dict) and isinstance(index, str):
        return of.get(index, UNDEFINED)
    if isinstance(of, list | str):
        at = to_int(index)
        return of[at] if at is not UNDEFINED and 0 <= at < len(of) else UNDEFINED
    return UNDEFINED


def _binary(work: Callable[[Any, Any], Any], left: Compiled, right: Compiled) -> Compiled:
    def compute(context: Context) -> Any:
        one, other = left(context), right(context)
        return UNDEFINED if one is UNDEFINED or other is UNDEFINED else work(one, other)

    return compute


def _logical(work: Callable[[Any, Any], Any], left: Compiled, right: Compiled) -> Compiled:
    return lambda context: work(left(context), right(context))


def _negated(of: Compiled) -> Compiled:
    def compute(context: Context) -> Any:
        value = to_boolean(of(context))
        return UNDEFINED if value is UNDEFINED else not value

    return compute
