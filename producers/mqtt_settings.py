"""Where an MQTT broker is and how devices introduce themselves, checked before anything connects."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self
from urllib.parse import urlsplit

from producers.delivery import Ledger
from producers.errors import AccessRefused, ConfigurationError, EndpointUnreachable, ProducerError

PAYLOAD_MAX_BYTES: Final = 128 * 1024
"""AWS IoT Core, message broker limits: a larger publish ends the connection."""
TOPIC_MAX_BYTES: Final = 256
TOPIC_MAX_SLASHES: Final = 7
"""AWS IoT Core: not counting ``$aws/rules/<rule>/`` of Basic Ingest."""
CLIENT_ID_MAX_BYTES: Final = 128
KEEP_ALIVE_MAX_S: Final = 1200
"""AWS IoT Core takes 30 to 1,200 s, and uses the nearer end for anything else."""
ALPN_MQTT: Final = "x-amzn-mqtt-ca"
"""What MQTT with a client certificate has to say on port 443 (AWS IoT Core, device communication protocols)."""

_DEFAULT_PORTS = {"mqtt": 1883, "mqtts": 8883, "ws": 80, "wss": 443}


class BrokerUnreachable(EndpointUnreachable):
    """The broker did not answer when the producer started."""

    def __init__(self, url: str, problem: str) -> None:
        ProducerError.__init__(
            self, f"cannot reach the MQTT broker at {url}: {problem}; is it running, and is the URL right?"
        )
        self.endpoint_url = url
        self.problem = problem


class DeviceRefused(AccessRefused):
    """The broker does not let the first device in. ``code`` is the reason's name, ``status`` its number."""

    def __init__(self, url: str, client_id: str, code: str, status: int) -> None:
        ProducerError.__init__(
            self,
            f"the MQTT broker at {url} refuses client {client_id!r}: {code}; check the client certificate or the "
            "user name and password, and whether its policy allows iot:Connect for this client id",
        )
        self.code = code
        self.message = code
        self.status = status


@dataclass(frozen=True, slots=True)
class Broker:
    """Of a URL ``mqtt://host:1883``, ``mqtts://host:8883``, ``ws://host:80/mqtt`` or ``wss://host:443/mqtt``."""

    url: str
    host: str
    port: int
    path: str
    tls: bool
    websocket: bool

    @classmethod
    def of(cls, url: str) -> Self:
        """:raises ConfigurationError: when ``url`` is none of these."""
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError as error:
            raise ConfigurationError(f"url {url!r} is not a URL: {error}") from None
        if parts.scheme not in _DEFAULT_PORTS:
            raise ConfigurationError(f"url must start with mqtt://, mqtts://, ws:// or wss://, not {url!r}")
        websocket = parts.scheme.startswith("ws")
        if not host:
            raise ConfigurationError(f"url {url!r} names no host")
        if parts.username or parts.password:
            raise ConfigurationError("give username and password as arguments of their own, not in the url")
        if not websocket and parts.path not in ("", "/"):
            raise ConfigurationError(f"url {url!r} has a path, which only ws:// and wss:// can have")
        if port is None:
            port = _DEFAULT_PORTS[parts.scheme]
        path = (parts.path if parts.path not in ("", "/") else "/mqtt") + (f"?{parts.query}" if parts.query else "")
        return cls(url, host, port, path if websocket else "", parts.scheme in ("mqtts", "wss"), websocket)


class _TidySocket(ssl.SSLSocket):
    """Closed when the handshake fails; paho leaves that to the garbage collector."""

    def do_handshake(self, block: bool = False) -> None:
        try:
            super().do_handshake(block)
        except BaseException:
            self.close()
            raise


@dataclass(frozen=True, slots=True)
class TlsSettings:
    """For ``mqtts://`` and ``wss://``; PEM files.

    :param ca_file: who may have signed the broker's certificate; ``None``: whom this machine trusts.
    :param cert_file: ``key_file``: the certificate that the devices show, and its private key.
    :param alpn: the protocol to ask for; ``None`` is ``x-amzn-mqtt-ca`` for ``mqtts://`` on port 443, else nothing.
    """

    ca_file: str | Path | None = None
    cert_file: str | Path | None = None
    key_file: str | Path | None = None
    alpn: str | None = None

    def check(self) -> None:
        """:raises ConfigurationError: for a file that is missing."""
        for name in ("ca_file", "cert_file", "key_file"):
            path = getattr(self, name)
            if path is not None and not Path(path).is_file():
                raise ConfigurationError(f"{name} {str(path)!r} does not exist or is not a file")
        if (self.cert_file is None) != (self.key_file is None):
            raise ConfigurationError("cert_file and key_file belong together: give both or neither")

    def alpn_for(self, broker: Broker) -> str | None:
        if self.alpn is not None:
            return self.alpn
        return ALPN_MQTT if broker.port == 443 and not broker.websocket else None

    def context(self, broker: Broker) -> ssl.SSLContext:
        """One for all devices: loading the trusted certificates takes milliseconds and a megabyte.

        :raises ConfigurationError: for files that hold no certificate, or not the key of it.
        """
        try:
            context = ssl.create_default_context(cafile=self.ca_file)
        except (ssl.SSLError, OSError) as error:
            raise ConfigurationError(f"ca_file {str(self.ca_file)!r} holds no PEM certificate: {error}") from None
        if self.cert_file is not None:
            try:
                # A password that is wrong instead of a prompt that nobody sees.
                context.load_cert_chain(self.cert_file, self.key_file, password="")
            except (ssl.SSLError, OSError) as error:
                raise ConfigurationError(
                    f"cert_file {str(self.cert_file)!r} and key_file {str(self.key_file)!r} are not a PEM certificate "
                    f"and its unencrypted key: {error}"
                ) from None
        context.sslsocket_class = _TidySocket
        alpn = self.alpn_for(broker)
        if alpn is not None:
            context.set_alpn_protocols([alpn])
        return context


@dataclass(frozen=True, slots=True)
class Will:
    """What the broker publishes for a device that vanishes without a DISCONNECT."""

    topic: str
    payload: bytes = b""
    qos: int = 0
    retain: bool = False


@dataclass(frozen=True, slots=True)
class MqttStatistics:
    """An MQTT producer at one moment."""

    ledger: Ledger
    connected: int
    connecting: int
    """Devices that are not connected: connecting, or waiting to do it again."""
    disconnects: int
    """Connections that ended without our wish."""
    reconnects: int
    published: int
    """PUBLISH packets, repeated ones included."""
    in_flight: int
    """Records published and not acknowledged."""
    queued: int
    """Records that are due and wait for their device's connection or for the acknowledgement of others."""
    throttled_by_shard: Mapping[str, int]
    """Always empty: a broker does not say which shard was full."""
    last_problem: str | None
    """What the broker or the network said last, when something failed."""
    spool_problem: str | None
    """Why lost records could not be spooled, the latest."""


def topics_of(devices: Sequence[Hashable] | Mapping[Hashable, str], topic: str) -> dict[Hashable, str]:
    """Device to topic.

    :raises ConfigurationError: for no devices, one twice, or a topic that nobody can publish to.
    """
    topics = dict(devices) if isinstance(devices, Mapping) else dict.fromkeys(devices, topic)
    if not topics:
        raise ConfigurationError("devices is empty: name at least one")
    if len(topics) != len(devices):
        raise ConfigurationError("devices names one of them twice")
    for one in set(topics.values()):
        check_topic("topic", one)
    return topics


def check_topic(name: str, topic: str) -> None:
    """:raises ConfigurationError: for a topic that AWS IoT Core does not let anyone publish to."""
    if not topic or "#" in topic or "+" in topic or "\0" in topic:
        raise ConfigurationError(f"{name} to publish to must not be empty or have wildcards (+, #), not {topic!r}")
    size = len(topic.encode(errors="replace"))
    if size > TOPIC_MAX_BYTES:
        raise ConfigurationError(f"{name} {topic!r} has {size:,} bytes of UTF-8, at most {TOPIC_MAX_BYTES} are allowed")
    slashes = topic.count("/") - (3 if topic.startswith("$aws/rules/") else 0)
    if slashes > TOPIC_MAX_SLASHES:
        raise ConfigurationError(f"{name} {topic!r} has {slashes} slashes, at most {TOPIC_MAX_SLASHES} are allowed")


def client_ids_of(devices: Sequence[Hashable], client_id: str | Callable[[Hashable], str]) -> dict[Hashable, str]:
    """Device to client id: what ``client_id`` makes of it, or that prefix and the device.

    :raises ConfigurationError: for ids that are empty, too long, or the same for two devices.
    """
    named = {device: f"{client_id}{device}" if isinstance(client_id, str) else client_id(device) for device in devices}
    seen: dict[str, Hashable] = {}
    for device, name in named.items():
        size = len(name.encode(errors="replace"))
        if not 1 <= size <= CLIENT_ID_MAX_BYTES:
            raise ConfigurationError(
                f"the client id {name!r} of device {device!r} has {size:,} bytes, from 1 to {CLIENT_ID_MAX_BYTES} "
                "are allowed"
            )
        if name in seen:
            raise ConfigurationError(
                f"devices {seen[name]!r} and {device!r} would have the same client id {name!r}, and so throw each "
                "other off the broker"
            )
        seen[name] = device
    return named
