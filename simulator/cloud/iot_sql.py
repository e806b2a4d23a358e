"""The SQL of IoT Core's rules (developer guide, *AWS IoT SQL reference*). No I/O, no clock.

A statement is compiled once into closures over a :class:`Context`, one for each message. The payload is parsed only
when something looks into it, so ``SELECT * FROM 'topic'`` passes any bytes on as they are, at no cost.

``Undefined`` is the value of whatever is not there. Comparing or computing with it gives Undefined again, a WHERE that
is Undefined does not match, and an Undefined item is left out of the result. What the reference does not have is
refused when the rule is made; so is what is not simulated (SET, shadows, machine learning, protobuf, the other services
that some functions ask), by name. Where the reference contradicts itself or says nothing, a comment tells what we do.
"""

from __future__ import annotations

from typing import Any, Final

from simulator.cloud.iot_sql_expressions import (
    array_of,
    binary,
    chosen,
    constant,
    document,
    field,
    field_or_whole,
    logical,
    negated,
    object_of,
)
from simulator.cloud.iot_sql_functions import compile_call, compile_cast
from simulator.cloud.iot_sql_model import (
    FIRST_VERSION,
    VERSIONS,
    Compiled,
    Context,
    Item,
    Message,
    NotJsonError,
    Selection,
    SqlError,
    Statement,
    query,
)
from simulator.cloud.iot_sql_tokens import Reader
from simulator.cloud.iot_sql_values import (
    ARITHMETIC,
    COMPARISONS,
    DECIMALS,
    DIGITS,
    UNDEFINED,
    both,
    either,
    is_in,
    subtract,
    to_text,
    whole,
)
from simulator.cloud.topic_filters import problem_with_filter

__all__ = [
    "UNDEFINED",
    "VERSIONS",
    "Compiled",
    "Context",
    "Message",
    "NotJsonError",
    "SqlError",
    "Statement",
    "parse",
    "parse_expression",
    "to_text",
]

_CLAUSES: Final = ("from", "where", "as")
_DEEPEST: Final = 50


def parse(sql: str, version: str = FIRST_VERSION) -> Statement:
    """:raises SqlError: with where the statement stops making sense."""
    if version not in VERSIONS:
        raise SqlError(f"awsIotSqlVersion {version!r}; there are {', '.join(VERSIONS)}")
    if sql.lower().split(None, 1)[:1] == ["set"]:
        raise SqlError("SET and its variables are not simulated here")
    return _Parser(sql, version).statement()


def parse_expression(text: str, version: str = "2016-03-23") -> Compiled:
    """What stands between ``${`` and ``}``. :raises SqlError:"""
    parser = _Parser(text, version)
    found = parser.expression()
    parser.expect_end()
    return found


class _Parser(Reader):
    """Recursive descent, one method for each level of precedence."""

    def __init__(self, text: str, version: str) -> None:
        super().__init__(text)
        self._version = version
        self._is_first = version == FIRST_VERSION
        self._depth = 0

    # -- the statement ---------------------------------------------------------------------------------

    def statement(self) -> Statement:
        if not self.word("select"):
            raise self.wrong("a statement begins with SELECT, not")
        star, items, bare = self._selected()
        topic_filter = ""
        if self.word("from"):
            token = self.next()
            if token.kind != "string":
                raise SqlError(f"FROM takes a topic filter in quotes, not {token.text!r}")
            topic_filter = token.text
            problem = problem_with_filter(topic_filter)
            if problem is not None:
                raise SqlError(f"FROM {problem}")
        where = self.expression() if self.word("where") else None
        self.expect_end()
        return Statement(topic_filter, Selection(star, items, bare, where))

    def _query(self) -> Compiled:
        """A nested SELECT, up to its closing parenthesis."""
        self._not_in_first_version("a SELECT in a SELECT")
        star, items, bare = self._selected()
        if not self.word("from"):
            raise self.wrong("a SELECT in a SELECT needs FROM and a field")
        source = self._path()
        where = self.expression() if self.word("where") else None
        self.expect(")")
        return query(Selection(star, items, bare, where), source)

    def _selected(self) -> tuple[bool, tuple[Item, ...], Compiled | None]:
        """``*``, the items and what VALUE takes."""
        if self.word("value"):
            return False, (), document if self.mark("*") else self.expression()
        star, items = False, []
        while True:
            if self.mark("*"):
                star = True
            else:
                items.append(self._item())
            if not self.mark(","):
                return star, tuple(items), None

    def _item(self) -> Item:
        start = self.at
        value = self.expression()
        if self.word("as"):
            return Item(self._alias(), value)
        # Without AS the last name of a path, or the function's, is the name.
        names = [one.text for one in self.tokens[start : self.at] if one.kind == "name"]
        if not names:
            raise self.wrong("an item that is no field needs AS")
        is_call = self.tokens[start + 1].text == "(" if self.at > start + 1 else False
        return Item((names[0] if is_call else names[-1],), value)

    def _alias(self) -> tuple[str, ...]:
        path: list[str] = []
        while not path or self.mark("."):
            token = self.next()
            if token.kind not in ("name", "string") or token.word in _CLAUSES:
                raise SqlError(f"AS takes a name, not {token.text!r}")
            path.append(token.text)
        return tuple(path)

    def _not_in_first_version(self, what: str) -> None:
        if self._is_first:
            raise SqlError(f"{what} needs awsIotSqlVersion 2016-03-23 or later, not {self._version}")

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
        while self.word("or"):
            left = logical(either, left, self._and())
        return left

    def _and(self) -> Compiled:
        left = self._not()
        while self.word("and"):
            left = logical(both, left, self._not())
        return left

    def _not(self) -> Compiled:
        count = 0
        while self.word("not"):
            count += 1
        found = self._comparison()
        return negated(found) if count % 2 else found

    def _comparison(self) -> Compiled:
        left = self._sum()
        if self.now.kind == "mark" and self.now.text in COMPARISONS:
            compare = COMPARISONS[self.next().text]
            return binary(compare, left, self._sum())
        if self.word("in"):
            return binary(is_in, left, self._sum())
        return left

    def _sum(self) -> Compiled:
        left = self._product()
        while self.now.kind == "mark" and self.now.text in ("+", "-"):
            left = binary(ARITHMETIC[self.next().text], left, self._product())
        return left

    def _product(self) -> Compiled:
        left = self._unary()
        while self.now.kind == "mark" and self.now.text in ("*", "/", "%"):
            left = binary(ARITHMETIC[self.next().text], left, self._unary())
        return left

    def _unary(self) -> Compiled:
        count = 0
        while self.mark("-"):
            count += 1
        found = self._path()
        return binary(subtract, constant(0), found) if count % 2 else found

    def _path(self) -> Compiled:
        found = self._primary()
        while True:
            if self.mark("."):
                token = self.next()
                if token.kind != "name" or token.word in _CLAUSES:
                    raise SqlError(f"a field's name is expected after the dot, not {token.text!r}; get() takes any")
                found = self._field(found, token.text)
            elif self.now.text == "[" and self.now.kind == "mark":
                raise self.wrong("an element is get(array, index), there is none")
            else:
                return found

    def _field(self, of: Compiled, name: str) -> Compiled:
        return field(of, name) if self._is_first else field_or_whole(of, name)

    def _primary(self) -> Compiled:
        token = self.now
        if self.word("case"):
            return self._case()
        if self.word("true", "false", "null"):
            return constant({"true": True, "false": False, "null": None}[token.word])
        if token.word:
            raise self.wrong("a value is expected, not")
        self.at += 1
        match token.kind:
            case "number":
                return constant(self._number(token.text))
            case "string":
                return constant(token.text)
            case "name" if self.mark("("):
                return self._call(token.text)
            case "name":
                return self._field(document, token.text)
        if token.text == "(":
            if self.word("select"):
                return self._query()
            found = self.expression()
            self.expect(")")
            return found
        if token.text == "[":
            self._not_in_first_version("an array written out")
            return array_of(self._list("]"))
        if token.text == "{":
            self._not_in_first_version("an object written out")
            return self._object()
        self.at -= 1
        raise self.wrong("a value is expected, not")

    def _number(self, text: str) -> Any:
        try:
            found = int(text) if text.isdigit() and len(text) <= DIGITS else DECIMALS.create_decimal(text)
        except ArithmeticError:
            raise SqlError(f"the number {text} is larger than a Decimal can be") from None
        return found if self._is_first else whole(found)

    def _list(self, end: str) -> list[Compiled]:
        found: list[Compiled] = []
        if self.mark(end):
            return found
        while True:
            found.append(self.expression())
            if self.mark(end):
                return found
            self.expect(",")

    def _object(self) -> Compiled:
        members: list[tuple[str, Compiled]] = []
        while not self.mark("}"):
            token = self.next()
            if token.kind not in ("string", "name"):
                raise SqlError(f"a member's name is expected, not {token.text!r}")
            self.expect(":")
            members.append((token.text, self.expression()))
            if not self.mark(","):
                self.expect("}")
                break

        return object_of(members)

    def _case(self) -> Compiled:
        if self.now.word == "when":
            # The reference has no CASE WHEN condition, and AWS told a reader that what follows WHEN is compared.
            raise self.wrong("CASE takes a value, as in CASE (a > 1) WHEN true THEN ... END; there is none")
        subject = self.expression()
        branches: list[tuple[Compiled, Compiled]] = []
        while self.word("when"):
            wanted = self.expression()
            if not self.word("then"):
                raise self.wrong("THEN is missing")
            branches.append((wanted, self.expression()))
        otherwise = self.expression() if self.word("else") else constant(UNDEFINED)
        if not branches or not self.word("end"):
            raise self.wrong("CASE needs WHEN ... THEN ... END;")

        return chosen(subject, branches, otherwise)

    def _call(self, name: str) -> Compiled:
        if name.lower() == "cast":
            return self._cast()
        if name.lower() == "encode" and self.mark("*"):
            # encode(*, 'base64') is of the payload's bytes, which need be no JSON.
            arguments: list[Compiled] = [lambda context: context.message.payload]
            if self.mark(","):
                arguments += self._list(")")
            else:
                self.expect(")")
        elif self.mark("*"):
            self.expect(")")
            arguments = [document]
        else:
            arguments = self._list(")")
        return compile_call(name, arguments, self._version)

    def _cast(self) -> Compiled:
        value = self.expression()
        if not self.word("as"):
            raise self.wrong("cast takes cast(value as Type), and AS is missing")
        kind = self.next().text
        self.expect(")")
        return compile_cast(value, kind, self._version)
