"""Text of IoT Core's SQL as tokens."""

from __future__ import annotations

import re
from dataclasses import dataclass

from simulator.cloud.iot_sql_model import SqlError

_TOKEN = re.compile(
    r"\s*(?:(?P<number>\d+(?:\.\d*)?(?:[eE][+-]?\d+)?|\.\d+)|'(?P<string>(?:[^']|'')*)'|\"(?P<quoted>[^\"]*)\""
    r"|(?P<name>[A-Za-z_][A-Za-z0-9_]*)|(?P<mark><>|<=|>=|[-+*/%=<>(),.;{}:\[\]]))",
    re.ASCII,
)
_WORDS = frozenset(
    "select from where as and or not in case when then else end true false null value".split()  # noqa: SIM905
)


@dataclass(frozen=True, slots=True)
class Token:
    """``kind`` is string, number, name, mark or end; ``at`` counts characters from 0."""

    kind: str
    text: str
    at: int

    @property
    def word(self) -> str:
        """The keyword it is, in lower case, or nothing."""
        return self.text.lower() if self.kind == "name" and self.text.lower() in _WORDS else ""


def tokens(text: str) -> list[Token]:
    """All of ``text``, and an end. :raises SqlError: where it cannot be read"""
    found: list[Token] = []
    at = 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            if not text[at:].strip():
                break
            raise SqlError(f"{text[at : at + 20]!r} at position {at} cannot be read")
        kind = match.lastgroup or ""
        value, start = match[kind], match.start(kind)
        if kind == "string":
            value = value.replace("''", "'")
        # The reference writes strings in quotes of either kind. A name cannot be quoted: names that have spaces cannot
        # be used in a statement (iot-sql-reference), and for those with hyphens there is get() (iot-sql-json).
        found.append(Token("string" if kind == "quoted" else kind, value, start))
        at = match.end()
    found.append(Token("end", "", len(text)))
    return found


class Reader:
    """Goes through the tokens of a text, one after the other."""

    def __init__(self, text: str) -> None:
        self.tokens = tokens(text)
        self.at = 0

    @property
    def now(self) -> Token:
        return self.tokens[self.at]

    def next(self) -> Token:
        token = self.now
        if token.kind != "end":
            self.at += 1
        return token

    def word(self, *words: str) -> bool:
        if self.now.word in words:
            self.at += 1
            return True
        return False

    def mark(self, mark: str) -> bool:
        if self.now.kind == "mark" and self.now.text == mark:
            self.at += 1
            return True
        return False

    def expect(self, mark: str) -> None:
        if not self.mark(mark):
            raise self.wrong(f"{mark!r} is missing")

    def wrong(self, problem: str) -> SqlError:
        token = self.now
        where = "at the end" if token.kind == "end" else f"at {token.text!r}, position {token.at}"
        return SqlError(f"{problem} {where}")

    def expect_end(self) -> None:
        self.mark(";")
        if self.now.kind != "end":
            raise self.wrong("nothing more is expected")
