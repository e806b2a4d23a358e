"""Substitution templates: ``${expression}`` in a rule's partition key, topic or object key.

Aliases of the SELECT are not known here, fields of the message as it was published are (developer guide,
*Substitution templates*). What is Undefined is the text ``undefined``.
"""

from __future__ import annotations

from collections.abc import Callable

from simulator.cloud.iot_sql import UNDEFINED, Compiled, Context, NotJsonError, SqlError, parse_expression, to_text

Render = Callable[[Context], str]


def compile_template(text: str, version: str = "2016-03-23") -> Render:
    """A function that fills ``text`` in for a message, in a version of the rules' SQL; it never raises.

    :raises SqlError:
    """
    parts: list[str | Compiled] = []
    at = 0
    while (start := text.find("${", at)) >= 0:
        end = _closing(text, start + 2)
        parts += [text[at:start], parse_expression(text[start + 2 : end], version)]
        at = end + 1
    parts.append(text[at:])
    wanted = [part for part in parts if part != ""]
    if not wanted:
        return lambda context: ""
    if len(wanted) == 1:
        only = wanted[0]
        if isinstance(only, str):
            return lambda context: only
        return lambda context: _value(only, context)
    return lambda context: "".join(part if isinstance(part, str) else _value(part, context) for part in wanted)


def _value(expression: Compiled, context: Context) -> str:
    try:
        return to_text(expression(context))
    except NotJsonError:
        return to_text(UNDEFINED)


def _closing(text: str, at: int) -> int:
    """The ``}`` that ends an expression, outside of quotes and of braces of its own."""
    depth, quote = 0, ""
    for place in range(at, len(text)):
        one = text[place]
        if quote:
            quote = "" if one == quote else quote
        elif one in "'\"":
            quote = one
        elif one == "{":
            depth += 1
        elif one == "}":
            if not depth:
                return place
            depth -= 1
    raise SqlError(f"{text!r}: the template's ${{ has no }}")
