"""Whatever is posted to the pages for providers, or asked of the page `/unsubscribe`: it is answered, and not with 500.

The receipts that come of it are events that the worker reads again.
"""

import json
from collections.abc import Mapping
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delivery.producer import RecordProducer
from notifications.unsubscribing import UnsubscribeLinks
from providers.webhooks.sendgrid import SIGNATURE_HEADER, TIMESTAMP_HEADER
from tests.fuzz import events
from tests.fuzz.edge import Passed, edge
from tests.fuzz.events import Record
from tests.fuzz.profiles import fuzzed
from tests.unit.test_view_windows import Sent
from tests.unit.test_webhooks import (
    DATA,
    SHOWN_KEY,
    SIGNING_KEY,
    TOPIC,
    Reported,
    Sns,
    of_mailgun,
    of_sendgrid,
    of_ses,
    of_sns,
)
from web.receipt_publisher import ReceiptPublisher
from web.unsubscribe_page import UnsubscribePage
from web.webhooks import Mailgun, SendGrid, Ses, Source, Webhook

STATUSES = {200, 400, 403, 406, 503}
LONGEST_ANSWER = 5_000

SENDGRID = json.loads((DATA / "sendgrid.json").read_bytes())
MAILGUN = json.loads((DATA / "mailgun.json").read_bytes())
SES = json.loads((DATA / "ses.json").read_bytes())
SOURCES: Mapping[str, Source] = {
    "sendgrid": SendGrid(SHOWN_KEY),
    "mailgun": Mailgun(SIGNING_KEY),
    "ses": Ses(TOPIC, Sns()),
}
SOUND = {
    "sendgrid": json.loads(of_sendgrid()[0]),
    "mailgun": json.loads(of_mailgun(MAILGUN["delivered"])[0]),
    "ses": json.loads(of_ses("bounced for good")[0]),
}
LINKS = UnsubscribeLinks("https://blog.example/unsubscribe", "a secret")

# As aiohttp reads them: what is no UTF-8 stands there as halves of surrogate pairs.
headers = st.dictionaries(
    st.sampled_from([SIGNATURE_HEADER, TIMESTAMP_HEADER]),
    st.one_of(
        st.binary(max_size=80).map(lambda value: value.decode(errors="surrogateescape")),
        st.sampled_from(["1769860800", "0", "99999999999", "1e9", "\uff11\uff12", "MEUCIQ=="]),
    ),
)


async def answered(provider: str, body: bytes, given_headers: Mapping[str, str]) -> int:
    """Post a request, and see that its receipts can be read; return the status."""
    reported = Reported()
    answer = await Webhook(SOURCES[provider], reported).answer(body, given_headers)
    assert answer.status in STATUSES
    assert len(answer.text.encode()) < LONGEST_ANSWER
    sent = Sent()
    await ReceiptPublisher("delivery-receipts", cast(RecordProducer, sent))(reported.receipts)
    for receipt, record in zip(reported.receipts, sent.records, strict=True):
        outcome = edge("delivery-receipts").take(Record(record.value, tuple(record.headers), key=record.key))
        assert isinstance(outcome, Passed), outcome
        assert (outcome.event.id, outcome.event.data) == receipt
    return answer.status


@pytest.mark.parametrize("provider", SOURCES)
@given(body=st.one_of(st.binary(), events.values().map(events.encoded)), some=headers)
@fuzzed(40)
async def test_noise_is_not_from_a_provider(provider: str, body: bytes, some: Mapping[str, str]) -> None:
    assert await answered(provider, body, some) in (403, 406)


@pytest.mark.parametrize("provider", SOURCES)
@given(data=st.data())
@fuzzed(40)
async def test_a_request_that_was_tampered_with_is_answered(provider: str, data: st.DataObject) -> None:
    body = data.draw(events.tampered([SOUND[provider]]))
    await answered(provider, events.encoded(body), data.draw(headers))


@given(body=st.one_of(events.values(), events.tampered([SENDGRID])))
@fuzzed(60)
async def test_what_sendgrid_signs_is_taken_or_not_as_documented(body: Any) -> None:
    assert await answered("sendgrid", *of_sendgrid(events.encoded(body))) in (200, 400)


@given(event=st.one_of(events.values(), events.tampered(MAILGUN.values())))
@fuzzed(60)
async def test_what_mailgun_signs_is_taken_or_not_as_documented(event: Any) -> None:
    signature = json.loads(of_mailgun({})[0])["signature"]
    body = events.encoded({"signature": signature, "event-data": event})
    # JSON that can't be read has no signature.
    assert await answered("mailgun", body, {}) in (200, 400, 406)


@given(event=st.one_of(events.values(), events.tampered(SES.values())))
@fuzzed(60)
async def test_what_amazon_signs_is_taken_or_not_as_documented(event: Any) -> None:
    message = events.encoded(event).decode()
    assert await answered("ses", *of_sns("Notification", Message=message)) in (200, 400)


@given(token=st.one_of(st.text(), events.strings(), st.text(alphabet="abcdefgh012.-_", max_size=60)))
@fuzzed(60)
async def test_a_token_that_we_did_not_make_is_a_bad_link(token: str) -> None:
    page = UnsubscribePage(LINKS, Reported(), "Blog", "https://blog.example")
    assert page.look(token).status == 404
    assert (await page.press(token)).status == 404
