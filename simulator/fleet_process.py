"""One process of a fleet: a producer that is told over a pipe what to send. Run by :mod:`simulator.fleet`."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import sys
from typing import Any

import numpy as np

from producers import ProducerError, TlsSettings
from simulator.cloud.server import allow_many_connections, run
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
    decode_to_process,
    framed,
)

TELL_INTERVAL_S = 0.5
_COUNTS = ("connected", "disconnects", "reconnects", "published", "in_flight", "queued")


async def _main() -> None:
    loop = asyncio.get_running_loop()
    allow_many_connections()
    reader = asyncio.StreamReader(limit=2**30)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin.buffer)
    out = os.fdopen(os.dup(1), "wb")

    def say(message: FromProcess) -> None:
        out.write(framed(message))
        out.flush()

    async def hear() -> ToProcess:
        length = int.from_bytes(await reader.readexactly(LENGTH_BYTES), "big")
        message: ToProcess = decode_to_process(await reader.readexactly(length))
        return message

    setup = await hear()
    assert isinstance(setup, Setup)
    producer: Any = None
    telling: asyncio.Task[None] | None = None
    try:
        producer = _producer(setup)
        async with producer:
            say(Ready())
            telling = asyncio.create_task(_tell(producer, say))
            while not isinstance(message := await hear(), Close):
                if isinstance(message, Put):
                    await producer.put_many(message.to_records())
                elif isinstance(message, Flush):
                    await producer.flush()
                    say(Flushed())
            await producer.close(drain=message.drain)
    except ProducerError as error:
        say(Failed(str(error)))
    except asyncio.IncompleteReadError:
        # The parent is gone.
        return
    finally:
        if telling is not None:
            telling.cancel()
    if producer is not None:
        say(_closed(producer))


def _producer(setup: Setup) -> Any:
    tls = TlsSettings(*setup.tls) if setup.tls is not None else None
    arguments = {**setup.arguments, "devices": setup.devices, "tls": tls}
    if setup.client == "awsiotsdk":
        from producers.iot_device import IotDeviceProducer

        return IotDeviceProducer(**arguments)
    from producers.mqtt import MqttProducer

    return MqttProducer(**arguments)


async def _tell(producer: Any, say: Any) -> None:
    while True:
        await asyncio.sleep(TELL_INTERVAL_S)
        found = producer.statistics()
        counts = {name: getattr(found, name) for name in _COUNTS if hasattr(found, name)}
        with contextlib.suppress(BrokenPipeError):
            say(Told(found.ledger.to_json(), counts, found.last_problem))


def _closed(producer: Any) -> Closed:
    lateness, accepted = producer.samples
    used = resource.getrusage(resource.RUSAGE_SELF)
    return Closed(
        producer.statistics().ledger.to_json(),
        np.asarray(lateness.values(), "<f4").tobytes(),
        np.asarray(accepted.values(), "<f4").tobytes(),
        used.ru_utime + used.ru_stime,
        used.ru_maxrss * (1 if sys.platform == "darwin" else 1024),
    )


if __name__ == "__main__":
    run(_main())
