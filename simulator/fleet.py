"""A producer in processes of its own: bikes are shared out, and each process rides its share.

It has the interface of the producers in :mod:`producers`, so a race differs in nothing else. Also a single process is
better than none: beside the functions' pollers, whose threads share an interpreter with whoever else is in theirs, the
messages of 1,000 bikers were up to 6 ms late (p99, a race on two cores); in a process of their own 1.6 ms.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from producers import (
    INTERRUPTED,
    Latencies,
    Ledger,
    ProducerClosed,
    ProducerError,
    Record,
    Samples,
    TlsSettings,
    percentiles_of,
)
from simulator.fleet_wire import (
    LENGTH_BYTES,
    Close,
    Closed,
    Failed,
    Flush,
    Flushed,
    FromProcess,
    Put,
    Ready,
    Setup,
    Told,
    ToProcess,
    decode_from_process,
    framed,
)

CLOSE_TIMEOUT_S = 15.0


@dataclass(slots=True)
class FleetStatistics:
    """All processes together. ``cpu_s`` and ``peak_memory_bytes`` are known at the end."""

    ledger: Ledger
    connected: int = 0
    last_problem: str | None = None
    cpu_s: float = 0.0
    peak_memory_bytes: int = 0


@dataclass(slots=True)
class _Member:
    """One process and what it said last."""

    process: asyncio.subprocess.Process
    spool: Path
    ledger: Ledger = field(default_factory=Ledger)
    handed: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    last_problem: str | None = None
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    flushed: asyncio.Event = field(default_factory=asyncio.Event)
    closed: Closed | None = None
    error: ProducerError | None = None
    listening: asyncio.Task[None] | None = None


class Fleet:
    """``processes`` producers of ``client`` (aiomqtt or awsiotsdk), each with its share of ``devices``.

    :param arguments: of the producer, but for ``devices``, ``spool`` and ``tls``.
    """

    def __init__(
        self,
        *,
        processes: int,
        client: str,
        devices: Sequence[int],
        spool: Path,
        tls: TlsSettings | None,
        arguments: dict[str, Any],
    ) -> None:
        self._shares = [list(devices[place::processes]) for place in range(processes)]
        self._place: dict[Hashable, int] = {
            device: place for place, share in enumerate(self._shares) for device in share
        }
        self._client, self._tls, self._arguments = client, tls, arguments
        self._spool = spool
        self._members: list[_Member] = []
        self._is_open = False

    # -- lifecycle -------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        rate = self._arguments.get("connect_rate_per_s")
        try:
            for place, share in enumerate(self._shares):
                spool = self._spool.with_suffix(f".{place}.jsonl")
                spool.unlink(missing_ok=True)
                arguments = {**self._arguments, "spool": str(spool)}
                if rate is not None:
                    arguments["connect_rate_per_s"] = rate / len(self._shares)
                files = None
                if self._tls is not None:
                    files = (_text(self._tls.ca_file), _text(self._tls.cert_file), _text(self._tls.key_file))
                await self._start(spool, Setup(self._client, share, arguments, files))
            await self._all(lambda member: member.ready)
        except BaseException:
            await self._end(drain=False)
            raise
        self._is_open = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close(drain=error is None)

    async def close(self, *, drain: bool = True) -> None:
        """As a producer's; the processes end."""
        if self._is_open:
            self._is_open = False
            await self._end(drain=drain)
            self._raise()

    async def _start(self, spool: Path, setup: Setup) -> None:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "simulator.fleet_process",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=2**30,
            env=dict(os.environ),
            # A Ctrl-C at the terminal is for the parent, who decides when bikes leave.
            start_new_session=True,
        )
        member = _Member(process, spool)
        member.listening = asyncio.create_task(self._listen(member))
        self._members.append(member)
        await self._say(member, setup)

    async def _end(self, *, drain: bool) -> None:
        for member in self._members:
            if member.process.returncode is None:
                await self._say(member, Close(drain))
        listening = [member.listening for member in self._members if member.listening is not None]
        timeout_s = None if drain else CLOSE_TIMEOUT_S
        try:
            if listening:
                await asyncio.wait(listening, timeout=timeout_s)
        finally:
            for member in self._members:
                if member.process.returncode is None:
                    with contextlib.suppress(ProcessLookupError):
                        member.process.kill()
            await asyncio.gather(*(member.process.wait() for member in self._members), *listening)
            self._gather_spools()

    def _gather_spools(self) -> None:
        with self._spool.open("ab") as whole:
            for member in self._members:
                if member.spool.exists():
                    whole.write(member.spool.read_bytes())
                    member.spool.unlink()

    # -- a producer's ----------------------------------------------------------------------------------

    async def put_many(self, records: Sequence[Record]) -> None:
        """As a producer's; ``order_key`` is one of the devices."""
        self._check_open()
        shares: list[list[Record]] = [[] for _ in self._members]
        for record in records:
            shares[self._place[record.order_key]].append(record)
        for member, share in zip(self._members, shares, strict=True):
            if share:
                member.handed += len(share)
                await self._say(member, Put.of(share))

    async def flush(self) -> None:
        """As a producer's."""
        self._check_open()
        for member in self._members:
            member.flushed.clear()
            await self._say(member, Flush())
        await self._all(lambda member: member.flushed)

    def statistics(self) -> FleetStatistics:
        """As the processes said last, half a second ago at most."""
        ledger = Ledger()
        found = FleetStatistics(ledger)
        for member in self._members:
            ledger = ledger + member.ledger
            found.connected += member.counts.get("connected", 0)
            found.last_problem = found.last_problem or member.last_problem
            if member.closed is not None:
                found.cpu_s += member.closed.cpu_s
                found.peak_memory_bytes += member.closed.peak_memory_bytes
            elif member.process.returncode is not None:
                # A process that was killed took with it what it had not settled.
                ledger.generated += member.handed - member.ledger.generated
                ledger.count_lost(ledger.in_flight, INTERRUPTED)
        found.ledger = ledger
        return found

    def latencies(self) -> Latencies:
        """Exact, of all processes together; known once they have ended."""
        lateness, accepted = self.samples
        return Latencies(percentiles_of([lateness]), percentiles_of([accepted]))

    @property
    def samples(self) -> tuple[Samples, Samples]:
        """As a producer's."""
        found = (Samples(), Samples())
        for member in self._members:
            if member.closed is not None:
                found[0].add(np.frombuffer(member.closed.send_lateness, "<f4"))
                found[1].add(np.frombuffer(member.closed.accepted, "<f4"))
        return found

    # -- the pipes -------------------------------------------------------------------------------------

    async def _say(self, member: _Member, message: ToProcess) -> None:
        assert member.process.stdin is not None
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            member.process.stdin.write(framed(message))
            await member.process.stdin.drain()

    async def _listen(self, member: _Member) -> None:
        reader = member.process.stdout
        assert reader is not None
        try:
            while True:
                length = int.from_bytes(await reader.readexactly(LENGTH_BYTES), "big")
                self._hear(member, decode_from_process(await reader.readexactly(length)))
        except asyncio.IncompleteReadError:
            code = await member.process.wait()
            if member.closed is None and member.error is None:
                member.error = ProducerError(f"a process of the fleet died (exit code {code}) with its bikes")
        finally:
            member.ready.set()
            member.flushed.set()

    def _hear(self, member: _Member, message: FromProcess) -> None:
        match message:
            case Ready():
                member.ready.set()
            case Flushed():
                member.flushed.set()
            case Told():
                member.ledger = Ledger(**message.ledger)
                member.counts, member.last_problem = message.counts, message.last_problem
            case Failed():
                member.error = ProducerError(message.message)
            case Closed():
                member.closed = message
                member.ledger = Ledger(**message.ledger)

    async def _all(self, event: Any) -> None:
        await asyncio.gather(*(event(member).wait() for member in self._members))
        self._raise()

    def _raise(self) -> None:
        for member in self._members:
            if member.error is not None:
                raise member.error

    def _check_open(self) -> None:
        self._raise()
        if not self._is_open:
            raise ProducerClosed("the fleet is closed")


def _text(path: str | Path | None) -> str | None:
    return None if path is None else str(path)
