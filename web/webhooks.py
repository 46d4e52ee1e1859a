"""The worker's pages for providers: `/webhooks/sendgrid`, `/webhooks/ses`, `/webhooks/mailgun`.

Input: requests that report on messages. Output: receipts in Kafka. A request is answered with success only when Kafka
has its receipts, so that the provider sends again what was not stored. A request that can't be verified is not read
further. A page exists if the key that verifies its provider is set.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import NamedTuple

import faust
import httpx
import structlog
from faust.web import Request, Response, View

from notifications.receipts.receipt import Receipt
from providers import http
from providers.webhooks import mailgun, sendgrid, ses
from providers.webhooks.base import Unreadable, Unverified
from runtime.metrics import WEBHOOKS
from runtime.settings import Settings
from web.receipt_publisher import NotPublished

log = structlog.get_logger(__name__)

Publish = Callable[[Iterable[Receipt]], Awaitable[None]]
"""Makes receipts durable; raises `NotPublished` if that can't be done now."""

Fetch = Callable[[str], Awaitable[bytes]]
"""Returns what is at a URL; raises `Unreachable`."""

_MOST_CERTIFICATES = 10
"""Amazon SNS has one for each region, and a new one now and then."""

_FETCHES_AT_ONCE = 4
_LARGEST_ANSWER = 2**16
"""Bytes. Amazon's certificates have 2 KB, its confirmations less."""


class Unreachable(Exception):  # noqa: N818  # what happened, not a fault
    """A resource that is needed to answer a request can't be fetched now."""


class Answer(NamedTuple):
    """The response to a provider: an HTTP status, and a line for its log."""

    status: int
    text: str


class SendGrid:
    """SendGrid's requests.

    Args:
        verification_key: As SendGrid shows it.
    """

    provider = sendgrid.PROVIDER
    status_unverified = 403

    def __init__(self, verification_key: str) -> None:
        self._verification_key = verification_key

    async def receipts(self, body: bytes, headers: Mapping[str, str]) -> list[Receipt]:
        """Verify a request, and read it.

        Raises:
            Unverified: It is not from SendGrid.
            Unreadable: It is, and can't be read in whole.
        """
        signature, timestamp = headers.get(sendgrid.SIGNATURE_HEADER), headers.get(sendgrid.TIMESTAMP_HEADER)
        now = datetime.now(UTC)
        sendgrid.verify(body, signature, timestamp, self._verification_key, now)
        return sendgrid.read(body, now)


class Mailgun:
    """Mailgun's requests.

    Args:
        signing_key: The HTTP webhook signing key.
    """

    provider = mailgun.PROVIDER
    status_unverified = 406
    """The only one after which Mailgun does not try again."""

    def __init__(self, signing_key: str) -> None:
        self._signing_key = signing_key

    async def receipts(self, body: bytes, _: Mapping[str, str]) -> list[Receipt]:
        """Verify a request, and read it.

        Raises:
            Unverified: It is not from Mailgun.
            Unreadable: It is, and can't be read.
        """
        mailgun.verify(body, self._signing_key, datetime.now(UTC))
        return mailgun.read(body)


class Ses:
    """Requests of Amazon SNS with events of Amazon SES; it confirms the subscription to its topic by itself.

    Args:
        topic: ARN of the one topic that may be it.
        fetch: Fetches certificates and confirms subscriptions.
    """

    provider = ses.PROVIDER
    status_unverified = 403

    def __init__(self, topic: str, fetch: Fetch) -> None:
        self._topic = topic
        self._fetch = fetch
        self._fetching = asyncio.Semaphore(_FETCHES_AT_ONCE)
        self._certificates: dict[str, bytes] = {}  # by URL: a new certificate has a new one

    async def receipts(self, body: bytes, _: Mapping[str, str]) -> list[Receipt]:
        """Verify a request, and read it.

        Raises:
            Unverified: It is not from Amazon SNS, or of another topic.
            Unreadable: It is, and can't be read.
            Unreachable: Amazon SNS does not give its certificate, or does not take the confirmation.
        """
        certificate = await self._certificate(ses.certificate_url(body, self._topic))
        ses.verify(body, certificate, self._topic, datetime.now(UTC))
        read = ses.read(body)
        if isinstance(read, ses.Confirmation):
            await self._fetch(read.url)
            log.info("webhook subscribed", provider=self.provider)
            return []
        return read

    async def _certificate(self, url: str) -> bytes:
        certificate = self._certificates.get(url)
        if certificate is None:
            # Nothing is verified yet: a sender who knows the topic may make up any number of addresses at Amazon.
            if self._fetching.locked():
                raise Unreachable("too many certificates are being fetched")
            async with self._fetching:
                certificate = await self._fetch(url)
            if len(self._certificates) >= _MOST_CERTIFICATES:
                self._certificates.clear()
            self._certificates[url] = certificate
        return certificate


Source = SendGrid | Mailgun | Ses


class Webhook:
    """Answers the requests of one provider.

    Args:
        source: Verifies and reads them.
        publish: Makes receipts durable.
    """

    def __init__(self, source: Source, publish: Publish) -> None:
        self._source = source
        self._publish = publish

    async def answer(self, body: bytes, headers: Mapping[str, str]) -> Answer:
        """Handle a request.

        Args:
            body: The bytes as they were received.
            headers: By name, in any case.
        """
        answer = await self._answer(body, headers)
        WEBHOOKS.labels(self._source.provider, str(answer.status)).inc()
        if answer.status != 200:
            log.warning("webhook refused", provider=self._source.provider, status=answer.status, problem=answer.text)
        return answer

    async def _answer(self, body: bytes, headers: Mapping[str, str]) -> Answer:
        answer = Answer(200, "taken")
        try:
            receipts: Iterable[Receipt] = await self._source.receipts(body, headers)
        except Unverified as error:
            return Answer(self._source.status_unverified, f"not verified: {error}")
        except Unreachable as error:
            return Answer(503, f"try again: {error}")
        except Unreadable as error:
            receipts, answer = error.receipts, Answer(400, f"not as documented: {error}")
        try:
            await self._publish(receipts)
        except NotPublished as error:
            return Answer(503, f"try again: {error}")
        return answer


async def fetch(url: str) -> bytes:
    """Fetch what is at a URL, without following redirects, and within a bounded size and time.

    Raises:
        Unreachable: It can't be fetched.
    """
    content = b""
    try:
        async with (
            asyncio.timeout(http.TIMEOUT.total_seconds()),
            http.client() as client,
            client.stream("GET", url) as response,
        ):
            if response.status_code != 200:
                raise Unreachable("Amazon SNS does not answer")
            async for chunk in response.aiter_bytes(_LARGEST_ANSWER):
                content += chunk
                if len(content) > _LARGEST_ANSWER:
                    raise Unreachable("Amazon SNS answers with more than a certificate")
    except (httpx.HTTPError, TimeoutError):
        raise Unreachable("Amazon SNS does not answer") from None
    return content


def serve(app: faust.App, settings: Settings, publish: Publish) -> None:
    """Add the pages of all providers whose requests can be verified."""
    if settings.sendgrid_verification_key is not None:
        _serve(app, "/webhooks/sendgrid", Webhook(SendGrid(settings.sendgrid_verification_key), publish))
    if settings.ses_topic is not None:
        _serve(app, "/webhooks/ses", Webhook(Ses(settings.ses_topic, fetch), publish))
    if settings.mailgun_signing_key is not None:
        _serve(app, "/webhooks/mailgun", Webhook(Mailgun(settings.mailgun_signing_key.get_secret_value()), publish))


def _serve(app: faust.App, path: str, webhook: Webhook) -> None:
    @app.page(path, name=path)
    class Page(View):
        async def post(self, request: Request) -> Response:
            answer = await webhook.answer(await request.read(), request.headers)
            return self.text(answer.text, status=answer.status)
