"""Running the embedded cloud: in this process (:func:`serve`) or as a child (:class:`CloudProcess`).

The server is granian because the JavaScript SDK's Kinesis client speaks HTTP/2 with prior knowledge, which
granian takes on the same port as HTTP/1.1 and uvicorn refuses. It runs embedded in our own event loop, so the
engines live in the process that serves them.

In someone's test::

    with CloudProcess() as cloud:
        kinesis = cloud.client("kinesis")
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any, Self

from simulator.cloud.limits import LimitSettings

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 4566
DEFAULT_MQTT_PORT = 1883
DEFAULT_REGION = "us-east-1"
START_TIMEOUT_S = 30.0


class CloudError(Exception):
    """The embedded cloud could not be started or has gone; the text says what to do."""


def check_port(host: str, port: int, flag: str = "--port") -> None:
    """:raises CloudError: when ``port`` is taken or may not be bound."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                reason = f"port {port} on {host} is in use"
            else:
                reason = f"cannot listen on {host}:{port} ({error.strerror})"
            raise CloudError(
                f"{reason}; stop what listens there, or choose another with {flag} (0 takes a free one)"
            ) from None


async def serve(app: Any, host: str, port: int, ready: Callable[[int], object], stop: asyncio.Event) -> None:
    """Serve ``app`` until ``stop`` is set; calls ``ready(port)`` once connections are answered.

    :raises CloudError: when the port cannot be had.
    """
    from granian.constants import HTTPModes, Interfaces
    from granian.http import HTTP2Settings
    from granian.net import SocketSpec
    from granian.server.embed import Server

    class Listening(Server):  # type: ignore[misc]
        """granian's embedded server, bound here rather than in its worker so that port 0 can be told."""

        def _init_shared_socket(self) -> None:
            self._shd: Any = SocketSpec(self.bind_addr, self.bind_port, self.backlog).build()
            self._sfd: Any = self._shd.get_fd()
            with socket.socket(fileno=os.dup(self._sfd)) as bound:
                listening.set_result(bound.getsockname()[1])

    check_port(host, port)
    listening: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    server = Listening(
        app,
        address=host,
        port=port,
        interface=Interfaces.ASGI,
        http=HTTPModes.auto,
        websockets=True,
        backlog=1024,
        # Bounds what is taken from clients before it is answered; the kernel queues the rest.
        backpressure=512,
        http2_settings=HTTP2Settings(initial_stream_window_size=16 * 1024 * 1024),
        log_enabled=False,
    )
    serving = asyncio.create_task(server.serve(), name="alleycat-http")
    stopping = asyncio.create_task(stop.wait(), name="alleycat-stop")
    announcing = asyncio.create_task(_announce(host, listening, ready), name="alleycat-ready")
    await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    announcing.cancel()
    if not serving.done():
        server.stop()
    await serving


async def _announce(host: str, listening: asyncio.Future[int], ready: Callable[[int], object]) -> None:
    """Bound is not yet accepting: say that the server is ready once a connection was taken."""
    port = await listening
    while True:
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_connection(host, port)
            writer.close()
            ready(port)
            return
        await asyncio.sleep(0.01)


def run(coroutine: Any) -> None:
    """Run the server's coroutine on uvloop where there is one."""
    try:
        import uvloop
    except ImportError:
        asyncio.run(coroutine)
    else:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(coroutine)


def allow_many_connections() -> None:
    """Raise this process's limit of open files as far as it may: every bike is a connection."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def client_environment(url: str, region: str) -> dict[str, str]:
    """The variables with which any AWS client or process uses an emulator at ``url``."""
    return {
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": region,
        "AWS_DEFAULT_REGION": region,
    }


class CloudProcess:
    """The embedded cloud in a process of its own, so that it shares no core time with its clients by accident.

    A context manager: ``with CloudProcess(port=0) as cloud``; the process ends with the block, or with its parent.

    :raises CloudError: on entering, when it cannot be started.
    """

    def __init__(
        self,
        *,
        host: str = DEFAULT_HOST,
        port: int = 0,
        mqtt_port: int = 0,
        settings: LimitSettings | None = None,
        tls: Mapping[str, Any] | None = None,
        broker: Mapping[str, Any] | None = None,
    ) -> None:
        """``tls``: members of :class:`simulator.cloud.mqtt_listener.TlsFiles`, for MQTT with client certificates.

        ``broker``: members of :class:`simulator.cloud.iot_bridge.BridgeSettings`, to use another broker.
        """
        self.host = host
        self.port = port
        self.mqtt_port = mqtt_port
        self.mqtt_tls_port = 0
        self.tls = tls
        self.broker = broker
        self.settings = settings or LimitSettings()
        self._process: subprocess.Popen[bytes] | None = None
        self._errors: list[bytes] = []

    @property
    def endpoint_url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    @property
    def mqtt_url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"mqtt://{host}:{self.mqtt_port}"

    @property
    def pid(self) -> int:
        return self._process.pid if self._process else 0

    def environment(self, region: str = DEFAULT_REGION) -> dict[str, str]:
        """The variables with which any AWS client or process uses this cloud."""
        return client_environment(self.endpoint_url, region)

    def client(self, service: str, region: str = DEFAULT_REGION, **settings: Any) -> Any:
        """A boto3 client of ``service``; ``settings`` are members of botocore's Config."""
        import boto3
        from botocore.config import Config

        settings.setdefault("s3", {"addressing_style": "path"})
        session = boto3.session.Session(aws_access_key_id="test", aws_secret_access_key="test", region_name=region)
        return session.client(service, endpoint_url=self.endpoint_url, config=Config(**settings))

    def reset(self) -> None:
        """Forget every stream, table, bucket and queue, as between two tests.

        :raises CloudError: when the cloud does not answer.
        """
        request = urllib.request.Request(f"{self.endpoint_url}/_alleycat/reset", method="POST")
        try:
            with urllib.request.urlopen(request, timeout=START_TIMEOUT_S):
                pass
        except OSError as error:
            raise CloudError(f"the embedded cloud at {self.endpoint_url} could not be reset: {error}") from None

    def poll(self) -> int | None:
        """The exit code of a cloud that has died; None while it runs."""
        return self._process.poll() if self._process else None

    def start(self) -> Self:
        check_port(self.host, self.port)
        check_port(self.host, self.mqtt_port, "--mqtt-port")
        options = json.dumps(
            {
                "host": self.host,
                "port": self.port,
                "mqtt_port": self.mqtt_port,
                "tls": dict(self.tls) if self.tls else None,
                "broker": dict(self.broker) if self.broker else None,
                "settings": asdict(self.settings),
            }
        )
        self._process = subprocess.Popen(
            [sys.executable, "-m", "simulator.cloud.server", options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        assert self._process.stdout is not None
        threading.Thread(target=self._drain_errors, name="alleycat-cloud-stderr", daemon=True).start()
        watchdog = threading.Timer(START_TIMEOUT_S, self._process.kill)
        watchdog.daemon = True
        watchdog.start()
        line = self._process.stdout.readline()
        watchdog.cancel()
        if not line:
            code = self._process.wait()
            told = b"".join(self._errors).decode(errors="replace").strip().splitlines()
            self.stop()
            raise CloudError(
                f"the embedded cloud did not start (exit code {code}): {told[-1] if told else 'no message'}"
            )
        ports = json.loads(line)
        self.port, self.mqtt_port, self.mqtt_tls_port = ports["port"], ports["mqtt_port"], ports["mqtt_tls_port"]
        return self

    def _drain_errors(self) -> None:
        assert self._process is not None
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self._errors = [*self._errors[-50:], line]

    def stop(self, timeout_s: float = 5.0) -> None:
        """End the process; it has nothing to save."""
        process, self._process = self._process, None
        if process is None:
            return
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        process.terminate()
        try:
            process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stderr is not None:
            process.stderr.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()


async def _child(options: dict[str, Any]) -> None:
    from simulator.cloud.endpoint import Cloud
    from simulator.cloud.iot_bridge import BridgeError, BridgeSettings
    from simulator.cloud.mqtt_listener import ListenError, TlsFiles

    allow_many_connections()
    cloud = Cloud(LimitSettings(**options["settings"]))
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    # A Ctrl-C reaches the whole process group; the parent decides when the cloud may go.
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def parent_gone() -> None:
        sys.stdin.buffer.read()
        loop.call_soon_threadsafe(stop.set)

    threading.Thread(target=parent_gone, name="alleycat-parent", daemon=True).start()
    host, listener = options["host"], cloud.iot.listener
    try:
        if options["broker"]:
            await cloud.iot.bridge_to(BridgeSettings(**options["broker"]))
        mqtt_port = await listener.open(host, options["mqtt_port"])
        tls_port = 0
        if options["tls"]:
            files = TlsFiles(**options["tls"])
            tls_port = await listener.open(host, files.port, files.context())
        ports = {"mqtt_port": mqtt_port, "mqtt_tls_port": tls_port}
        await serve(
            cloud,
            host,
            options["port"],
            lambda port: print(json.dumps({"port": port, **ports}), flush=True),
            stop,
        )
    except (ListenError, BridgeError) as error:
        raise CloudError(str(error)) from None
    finally:
        cloud.close()


if __name__ == "__main__":
    try:
        run(_child(json.loads(sys.argv[1])))
    except CloudError as error:
        # At once: the thread that waits for the parent holds stdin, and an orderly end would abort over it.
        print(error, file=sys.stderr, flush=True)
        os._exit(1)
    # The worker thread may still be inside a call; nothing of it is worth waiting for.
    sys.stdout.flush()
    os._exit(0)
