"""Functions of strings in IoT Core's SQL (developer guide, *Functions*, ``iot-sql-functions``).

What is no string is converted by the standard conversions, so that Null is Undefined, and so is the result.
"""

from __future__ import annotations

import base64
import hashlib
import re
import warnings
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, Final

import orjson

from simulator.cloud.iot_sql_values import UNDEFINED, to_int, to_string

_WIDEST = 1000


def _of_strings(work: Callable[..., Any]) -> Callable[..., Any]:
    """``work`` on arguments that are all strings."""

    def compute(*values: Any) -> Any:
        texts = [to_string(value) for value in values]
        return UNDEFINED if any(text is UNDEFINED for text in texts) else work(*texts)

    return compute


def _digest(name: str) -> Callable[..., Any]:
    return _of_strings(lambda text: hashlib.new(name, text.encode(), usedforsecurity=False).hexdigest())


def _chr(value: Any) -> Any:
    """A character of ASCII."""
    code = to_int(value)
    return UNDEFINED if code is UNDEFINED or not 0 <= code < 128 else chr(code)


def _substring(value: Any, start: Any, end: Any = None) -> Any:
    text, first = to_string(value), to_int(start)
    if text is UNDEFINED or first is UNDEFINED:
        return UNDEFINED
    last = len(text) if end is None else to_int(end)
    return UNDEFINED if last is UNDEFINED else text[max(0, first) : max(0, last)]


def _substring_of(*values: Any) -> Any:
    # Null as the third argument is no Int; that it was left out must be something else.
    return UNDEFINED if len(values) == 3 and values[2] is None else _substring(*values)


def _padded(work: Callable[[str, str], str]) -> Callable[[Any, Any], Any]:
    """With so many spaces, 0 to 1000, which is not the width of the result."""

    def compute(value: Any, count: Any) -> Any:
        text, spaces = to_string(value), to_int(count)
        if text is UNDEFINED or spaces is UNDEFINED:
            return UNDEFINED
        return work(text, " " * min(max(spaces, 0), _WIDEST))

    return compute


# -- base64 --------------------------------------------------------------------------------------------


def _encode(value: Any, scheme: Any) -> Any:
    data = value if isinstance(value, bytes) else to_string(value)
    if scheme != "base64" or data is UNDEFINED:
        return UNDEFINED
    return base64.b64encode(data if isinstance(data, bytes) else data.encode()).decode()


def _decode(value: Any, scheme: Any) -> Any:
    """What JSON it is, else the string; Null of what is no base64. Protobuf is not simulated."""
    if scheme != "base64" or not isinstance(value, str):
        return UNDEFINED
    try:
        text = base64.b64decode(value, validate=True).decode()
    except ValueError:
        return None
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return text


# -- regular expressions -------------------------------------------------------------------------------

_NAMED_GROUP = re.compile(r"\(\?<(?=[A-Za-z])")
_REPLACEMENT = re.compile(r"\\(.)|\$([0-9])|\$\{([A-Za-z][A-Za-z0-9]*)\}|([\\$])", re.DOTALL)


@lru_cache(maxsize=256)
def _compiled(pattern: str) -> re.Pattern[str] | None:
    """A regular expression of Java's, as far as Python's are the same; None if it is none."""
    try:
        with warnings.catch_warnings():
            # Of sets within sets, which Java has and Python may have one day.
            warnings.simplefilter("ignore")
            return re.compile(_NAMED_GROUP.sub("(?P<", pattern), re.ASCII)
    except (re.error, OverflowError, RecursionError):
        return None


def _matches(text: str, pattern: str) -> Any:
    regex = _compiled(pattern)
    return UNDEFINED if regex is None else regex.search(text) is not None


def _substring_matched(text: str, pattern: str) -> Any:
    """The first match; without any Undefined, for which no source was found."""
    regex = _compiled(pattern)
    match = None if regex is None else regex.search(text)
    return UNDEFINED if match is None else match[0]


def _replaced(text: str, pattern: str, replacement: str) -> Any:
    """All matches replaced, ``$1`` standing for the first group; Undefined where there is no such group."""
    regex = _compiled(pattern)
    if regex is None:
        return UNDEFINED
    parts: list[str | int] = []
    at = 0
    for mark in _REPLACEMENT.finditer(replacement):
        escaped, number, name, lone = mark.groups()
        if lone or (number and int(number) > regex.groups) or (name and name not in regex.groupindex):
            return UNDEFINED
        parts.append(replacement[at : mark.start()])
        parts.append(escaped if escaped else int(number) if number else regex.groupindex[name])
        at = mark.end()
    parts.append(replacement[at:])
    return regex.sub(
        lambda match: "".join(part if isinstance(part, str) else match[part] or "" for part in parts), text
    )


STRINGS: Final[Mapping[str, tuple[int, int, Callable[..., Any]]]] = {
    "chr": (1, 1, _chr),
    "decode": (2, 2, _decode),
    "encode": (2, 2, _encode),
    "endswith": (2, 2, _of_strings(str.endswith)),
    # -1 for what is not there is not documented.
    "indexof": (2, 2, _of_strings(str.find)),
    "length": (1, 1, _of_strings(len)),
    "lower": (1, 1, _of_strings(str.lower)),
    "lpad": (2, 2, _padded(lambda text, spaces: spaces + text)),
    # White space is "tabs and spaces" where the reference says what it is.
    "ltrim": (1, 1, _of_strings(lambda text: text.lstrip(" \t"))),
    "md5": (1, 1, _digest("md5")),
    "numbytes": (1, 1, _of_strings(lambda text: len(text.encode()))),
    "regexp_matches": (2, 2, _of_strings(_matches)),
    "regexp_replace": (3, 3, _of_strings(_replaced)),
    "regexp_substr": (2, 2, _of_strings(_substring_matched)),
    "replace": (3, 3, _of_strings(str.replace)),
    "rpad": (2, 2, _padded(lambda text, spaces: text + spaces)),
    "rtrim": (1, 1, _of_strings(lambda text: text.rstrip(" \t"))),
    "sha1": (1, 1, _digest("sha1")),
    "sha224": (1, 1, _digest("sha224")),
    "sha256": (1, 1, _digest("sha256")),
    "sha384": (1, 1, _digest("sha384")),
    "sha512": (1, 1, _digest("sha512")),
    "startswith": (2, 2, _of_strings(str.startswith)),
    "substring": (2, 3, _substring_of),
    "trim": (1, 1, _of_strings(str.strip)),
    "upper": (1, 1, _of_strings(str.upper)),
}
