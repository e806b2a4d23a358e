"""What the commands share: flags that also read ``ALLEYCAT_<FLAG>``, their checks, exit codes, one-line complaints."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

EXIT_FAILED, EXIT_USAGE, EXIT_TARGET, EXIT_INTERRUPTED = 1, 2, 3, 130
_DURATION = re.compile(r"(\d+)\s*(s|m|h)?")


class UsageError(Exception):
    """A flag's value cannot be used; the text is one line and says what can."""


def flag(*names: str, env: str, help: str, **more: Any) -> Any:  # noqa: A002 - typer's own word
    return typer.Option(*names, envvar=f"ALLEYCAT_{env}", help=help, **more)


ConfigEnv = Annotated[str, flag("--config-env", env="CONFIG_ENV", help="Environment of samconfig.toml.")]
Template = Annotated[Path | None, flag("--template", env="TEMPLATE", help="SAM template; ./template.yaml by default.")]
Settings = Annotated[
    list[str] | None, flag("--set", env="SET", help="Template parameter, NAME=VALUE; may be repeated.")
]
AsJson = Annotated[bool, flag("--json", env="JSON", help="Print JSON on stdout.")]


def settings_of(settings: Sequence[str] | None) -> dict[str, str]:
    """The parameters of ``--set``. :raises UsageError:"""
    found = {}
    for setting in settings or ():
        name, separator, value = setting.partition("=")
        if not separator or not name:
            raise UsageError(f"--set takes NAME=VALUE, not {setting!r}")
        found[name] = value
    return found


def seconds(name: str, text: str, most: int = 86_400 * 7) -> int:
    """The seconds of ``60s``, ``5m``, ``1h``. :raises UsageError:"""
    match = _DURATION.fullmatch(text.strip())
    value = int(match[1]) * {"s": 1, "m": 60, "h": 3600}[match[2] or "s"] if match else 0
    if not 1 <= value <= most:
        raise UsageError(f"{name} {text!r}: give a time such as 60s, 5m or 1h, from 1s to {most}s")
    return value


def one_of(name: str, value: str, allowed: tuple[str, ...], note: str = "") -> str:
    if value not in allowed:
        raise UsageError(f"{name} {value!r}: choose {' or '.join(allowed)}{f' ({note})' if note else ''}")
    return value


def complain(message: str, code: int) -> int:
    """Say ``message`` in one line on stderr; returns ``code``."""
    print(f"alleycat: {' '.join(message.split())}", file=sys.stderr)
    return code
