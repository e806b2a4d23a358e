"""What commands check and ask before they start: a directory that can be written, and money."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import typer

from simulator.cost import CostLine
from simulator.flags import EXIT_USAGE, UsageError


def writable(out: Path) -> None:
    """Make the directory ``out`` and see that files can be put there. :raises UsageError:"""
    try:
        out.mkdir(parents=True, exist_ok=True)
        probe = out / ".alleycat"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UsageError(f"--out {out}: {error.strerror}; choose a directory that can be written") from None


def confirm_cost(lines: Sequence[CostLine], what: str, yes: bool, about: str = "") -> None:
    """Show the bill of ``what``, ``about`` beside its sum, and ask whether to go on.

    :raises UsageError: when there is nobody to ask.
    :raises typer.Exit: when the answer is no.
    """
    for line in lines:
        print(f"{line.usd:10.4f} USD  {line.what}", file=sys.stderr)
    total = sum(line.usd for line in lines)
    print(f"{total:10.4f} USD  in all{about}, at us-east-1 prices", file=sys.stderr)
    if yes:
        return
    if not sys.stdin.isatty():
        raise UsageError(f"{what} on AWS costs money; add --yes to go on without being asked")
    if not typer.confirm("Go on?", err=True):
        raise typer.Exit(EXIT_USAGE)
