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
