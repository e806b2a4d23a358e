"""Where to send requests, and signed as whom: everything that botocore knows about that.

Region, endpoint (``AWS_ENDPOINT_URL``, ``AWS_ENDPOINT_URL_KINESIS``, profiles, FIPS, dual-stack), certificates and
credentials are botocore's answers, so they mean here what they mean everywhere. Only the sending is our own.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import Any

import botocore.httpsession
import botocore.session
import botocore.utils
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import RefreshableCredentials
from botocore.exceptions import BotoCoreError

from producers.errors import ConfigurationError
from producers.put_records import CONTENT_TYPE, TARGET_PREFIX


class Target:
    """A Kinesis endpoint in a region, and the credentials for it.

    ``proxy`` is the proxy that the environment names for this endpoint, ``tls`` the context for ``https``.
    """

    __slots__ = ("_credentials", "endpoint_url", "proxy", "region", "tls")

    def __init__(self, region: str, endpoint_url: str, credentials: Any, proxy: str | None, ca_bundle: str) -> None:
        self.region = region
        self.endpoint_url = endpoint_url
        self.proxy = proxy
        self.tls = ssl.create_default_context(cafile=ca_bundle) if endpoint_url.startswith("https:") else None
        self._credentials = credentials

    @classmethod
    def resolve(cls, region: str | None, endpoint_url: str | None, session: Any = None) -> Target:
        """Ask botocore. Reads files and may fetch credentials over the network: not for an event loop.

        :raises ConfigurationError: when there is no region or are no credentials, or botocore cannot read its
            configuration.
        """
        session = session or botocore.session.get_session()
        try:
            client = session.create_client("kinesis", region_name=region, endpoint_url=endpoint_url)
            credentials = session.get_credentials()
            if credentials is not None:
                credentials.get_frozen_credentials()
        except (BotoCoreError, ValueError) as error:
            raise ConfigurationError(f"cannot use Kinesis: {error} (AWS_REGION, AWS_PROFILE, endpoint_url?)") from None
        if credentials is None:
            raise ConfigurationError(
                "no AWS credentials found: set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY "
                "(the embedded cloud takes any, by custom test and test)"
            )
        endpoint: str = client.meta.endpoint_url
        client.close()
        bundle = session.get_config_variable("ca_bundle") or botocore.httpsession.get_cert_path(True)
        proxies = botocore.utils.get_environ_proxies(endpoint)
        try:
            return cls(
                client.meta.region_name,
                endpoint,
                credentials,
                proxies.get(endpoint.partition(":")[0]),
                bundle,
            )
        except OSError as error:
            raise ConfigurationError(f"cannot read certificates from {bundle}: {error} (AWS_CA_BUNDLE?)") from None

    async def headers(self, operation: str, body: bytes) -> dict[str, str]:
        """The headers of a signed request (Signature Version 4).

        Credentials that are about to expire are refreshed first, in a thread.

        :raises botocore.exceptions.BotoCoreError: when they cannot be.
        """
        credentials = self._credentials
        if isinstance(credentials, RefreshableCredentials) and credentials.refresh_needed():
            frozen = await asyncio.to_thread(credentials.get_frozen_credentials)
        else:
            frozen = credentials.get_frozen_credentials()
        request = AWSRequest(
            method="POST",
            url=self.endpoint_url,
            headers={"X-Amz-Target": TARGET_PREFIX + operation, "Content-Type": CONTENT_TYPE},
            data=body,
        )
        SigV4Auth(frozen, "kinesis", self.region).add_auth(request)
        return dict(request.headers.items())
