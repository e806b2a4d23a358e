"""``parse_time`` of IoT Core's SQL (``iot-sql-functions``): a time as text, by a pattern of Joda-Time's.

Names of months and days are English, as in the reference's example. The long names of time zones (``zzzz``), which the
standard library does not have, are Undefined, and so is a zone that this machine's data does not know.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo

from simulator.cloud.iot_sql_values import UNDEFINED, to_int, to_string

_MONTHS = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_PART = re.compile(r"'(?P<quoted>(?:[^']|'')*)'|(?P<letter>[A-Za-z])(?P=letter)*|(?P<other>[^A-Za-z'])", re.DOTALL)
_OFFSET = re.compile(r"([+-])([0-9]{2}):?([0-9]{2})")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Field = Callable[[datetime, int], str]


def parse_time(pattern: Any, timestamp_ms: Any, zone: Any = "UTC") -> Any:
    """Undefined for what is no pattern, no zone, or outside of the years 1 to 9999."""
    text, ms, name = to_string(pattern), to_int(timestamp_ms), to_string(zone)
    if text is UNDEFINED or ms is UNDEFINED or name is UNDEFINED:
        return UNDEFINED
    parts, found = _parts(text), _zone(name)
    if parts is None or found is None:
        return UNDEFINED
    try:
        moment = (_EPOCH + timedelta(milliseconds=ms)).astimezone(found)
        return "".join(part if isinstance(part, str) else part[0](moment, part[1]) for part in parts)
    except (ValueError, OverflowError):
        return UNDEFINED


@lru_cache(maxsize=256)
def _parts(pattern: str) -> tuple[str | tuple[Field, int], ...] | None:
    """Texts, and fields with the count of their letters; None if it is no pattern."""
    found: list[str | tuple[Field, int]] = []
    at = 0
    while at < len(pattern):
        match = _PART.match(pattern, at)
        if match is None:
            return None
        at = match.end()
        if match["letter"]:
            field = _FIELDS.get(match["letter"])
            if field is None:
                return None
            found.append((field, len(match[0])))
        elif match["other"]:
            found.append(match["other"])
        else:
            found.append(match["quoted"].replace("''", "'") or "'")
    return tuple(found)


@lru_cache(maxsize=256)
def _zone(name: str) -> tzinfo | None:
    if name == "UTC":
        return UTC
    offset = _OFFSET.fullmatch(name)
    try:
        if offset:
            minutes = int(offset[2]) * 60 + int(offset[3])
            return timezone(timedelta(minutes=minutes if offset[1] == "+" else -minutes))
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        return None


# -- fields --------------------------------------------------------------------------------------------


def _number(of: Callable[[datetime], int]) -> Field:
    """With as many digits as there are letters, or more."""
    return lambda moment, count: str(of(moment)).zfill(count)


def _year(of: Callable[[datetime], int]) -> Field:
    """Two letters are the last two digits."""
    return lambda moment, count: f"{of(moment) % 100:02}" if count == 2 else str(of(moment)).zfill(count)


def _month(moment: datetime, count: int) -> str:
    if count < 3:
        return str(moment.month).zfill(count)
    name = _MONTHS[moment.month - 1]
    return name if count > 3 else name[:3]


def _day(moment: datetime, count: int) -> str:
    name = _DAYS[moment.weekday()]
    return name if count > 3 else name[:3]


def _fraction(moment: datetime, count: int) -> str:
    return f"{moment.microsecond // 1000:03}".ljust(count, "0")[:count]


def _offset(moment: datetime, count: int) -> str:
    """+0100, +01:00 with two letters, the zone's id with more."""
    if count > 2:
        return getattr(moment.tzinfo, "key", None) or str(moment.tzinfo).removeprefix("UTC") or "UTC"
    seconds = int((moment.utcoffset() or timedelta()).total_seconds())
    hours, minutes = divmod(abs(seconds) // 60, 60)
    return f"{'-' if seconds < 0 else '+'}{hours:02}{':' if count == 2 else ''}{minutes:02}"


def _zone_name(moment: datetime, count: int) -> str:
    name = (moment.tzname() or "").removeprefix("UTC")
    if count > 3:
        raise ValueError("the long names of time zones are not known here")
    # A zone without a name has its offset for one.
    return name if name[:1].isalpha() else _offset(moment, 2) if moment.utcoffset() else "UTC"


_FIELDS: Mapping[str, Field] = {
    "G": lambda moment, count: "AD",
    "C": _number(lambda moment: moment.year // 100),
    "Y": _year(lambda moment: moment.year),
    "x": _year(lambda moment: moment.isocalendar().year),
    "w": _number(lambda moment: moment.isocalendar().week),
    "e": _number(datetime.isoweekday),
    "E": _day,
    "y": _year(lambda moment: moment.year),
    "D": _number(lambda moment: moment.timetuple().tm_yday),
    "M": _month,
    "d": _number(lambda moment: moment.day),
    "a": lambda moment, count: "AM" if moment.hour < 12 else "PM",
    "K": _number(lambda moment: moment.hour % 12),
    "h": _number(lambda moment: moment.hour % 12 or 12),
    "H": _number(lambda moment: moment.hour),
    "k": _number(lambda moment: moment.hour or 24),
    "m": _number(lambda moment: moment.minute),
    "s": _number(lambda moment: moment.second),
    "S": _fraction,
    "z": _zone_name,
    "Z": _offset,
}
