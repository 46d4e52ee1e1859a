"""Bounces that providers report: only what is about the mailbox, for good, lets nothing more be sent to it."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from providers.webhooks import mailgun, sendgrid, ses
from tests.unit.test_webhooks_mailgun import EVENTS as MAILGUN
from tests.unit.test_webhooks_ses import EVENTS as SES
from tests.unit.test_webhooks_ses import MESSAGES, body

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)

GONE = [
    "550 5.1.1 user unknown",
    "550 5.1.1 <alice@example.com>: Recipient address rejected: User unknown in relay recipient table",
    "550 No such user here",
]
NOT_GONE = [
    "550 5.2.1 The user you are trying to contact is receiving mail at a rate that prevents delivery",
    "550 5.2.1 Mailbox unavailable. Your IP address 192.0.2.1 is blacklisted using a list",
    "550 5.4.5 Daily user sending limit exceeded",
    "550 5.7.1 Service unavailable; client host blocked",
    "550 5.7.26 Unauthenticated email is not accepted due to DMARC policy",
    "552 5.2.2 mailbox full",
    "552 5.3.4 message too large",
    "554 5.7.1 Relay access denied",
    "550 5.1.1 temporarily rejected, try again later",
]
SAID = [*((said, True) for said in GONE), *((said, False) for said in NOT_GONE)]


def of_sendgrid(**event: Any) -> bool:
    whole = {"event": "bounce", "type": "bounce", "timestamp": 1513299569, "email": "alice@example.com", **event}
    [receipt] = sendgrid.read(json.dumps([whole]).encode(), NOW)
    assert receipt.data.kind == "bounced"
    return receipt.data.permanent


def of_mailgun(reason: str, **status: Any) -> bool:
    event = {**MAILGUN["failed permanently"], "reason": reason, "delivery-status": status}
    [receipt] = mailgun.read(json.dumps({"signature": {}, "event-data": event}).encode())
    return receipt.data.permanent


def of_ses(bounce_type: str, sub_type: str, **recipient: Any) -> bool:
    about = {
        **SES["bounced for good"]["bounce"],
        "bounceType": bounce_type,
        "bounceSubType": sub_type,
        "bouncedRecipients": [{"emailAddress": "recipient@example.com", **recipient}],
    }
    event = {**SES["bounced for good"], "bounce": about}
    receipts = ses.read(body({**MESSAGES["Notification"], "Message": json.dumps(event)}))
    assert not isinstance(receipts, ses.Confirmation)
    [receipt] = receipts
    return receipt.data.permanent


@pytest.mark.parametrize(("said", "permanent"), SAID, ids=lambda value: str(value)[:40])
def test_the_servers_words_have_a_say_in_every_providers_bounce(said: str, permanent: bool) -> None:
    assert of_sendgrid(reason=said) is permanent
    assert of_mailgun("bounce", code=int(said[:3]), message=said[4:]) is permanent
    assert of_mailgun("bounce", code=int(said[:3]), message=said) is permanent
    assert of_ses("Permanent", "General", diagnosticCode=f"smtp; {said}") is permanent


@pytest.mark.parametrize(
    ("classification", "permanent"),
    [
        ("Invalid Address", True),
        ("Unclassified", True),
        (None, True),
        ("Technical", False),
        ("Technical Failure", False),
        ("Content", False),
        ("Reputation", False),
        ("Frequency/Volume", False),
        ("Frequency or Volume Too High", False),
        ("Mailbox Unavailable", False),
        ("Something New", False),
    ],
)
def test_what_sendgrid_makes_of_a_bounce_is_heeded(classification: str | None, permanent: bool) -> None:
    assert of_sendgrid(reason="550 5.1.1 user unknown", bounce_classification=classification) is permanent


@pytest.mark.parametrize("kind", ["blocked", "expired"])
def test_what_sendgrid_calls_blocked_is_no_fault_of_the_address(kind: str) -> None:
    assert not of_sendgrid(type=kind, reason="550 5.1.1 user unknown")


@pytest.mark.parametrize(
    ("bounce_type", "sub_type", "permanent"),
    [
        ("Permanent", "General", True),
        ("PERMANENT", "General", True),
        ("Permanent", "NoEmail", True),
        ("Permanent", "Suppressed", True),
        ("Permanent", "OnAccountSuppressionList", True),
        ("Permanent", "UnsubscribedRecipient", False),
        ("Permanent", "Something New", False),
        ("Transient", "General", False),
        ("Transient", "MailboxFull", False),
        ("Transient", "MessageTooLarge", False),
        ("Transient", "CustomTimeoutExceeded", False),
        ("Transient", "ContentRejected", False),
        ("Transient", "AttachmentRejected", False),
        ("Undetermined", "Undetermined", False),
    ],
)
def test_a_type_of_ses_means(bounce_type: str, sub_type: str, permanent: bool) -> None:
    assert of_ses(bounce_type, sub_type) is permanent


@pytest.mark.parametrize(
    ("reason", "permanent"),
    [("bounce", True), ("suppress-bounce", True), ("suppress-complaint", True), ("suppress-unsubscribe", False)]
    + [(reason, False) for reason in ("generic", "espblock", "old", "hardfail", "greylisted")],
)
def test_a_reason_of_mailgun_means(reason: str, permanent: bool) -> None:
    assert of_mailgun(reason, code=550, message="5.1.1 user unknown") is permanent


@pytest.mark.parametrize(
    ("reason", "permanent"),
    [
        ("Bounced Address", True),
        ("Spam Reporting Address", True),
        ("Invalid", False),
        ("Invalid Address", False),
        ("Unsubscribed Address", False),
        ("Invalid SMTPAPI header", False),
        ("Spam Content (if Spam Checker app is enabled)", False),
        ("Recipient List over Package Quota", False),
    ],
)
def test_what_sendgrid_drops_by_its_own_rules_says_nothing_of_the_mailbox(reason: str, permanent: bool) -> None:
    assert of_sendgrid(event="dropped", reason=reason) is permanent
