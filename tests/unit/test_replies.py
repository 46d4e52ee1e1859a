"""What replies mean: the example of each row of the table, and what no reply may lead to."""

from collections.abc import Iterator, Mapping
from typing import get_args

import pytest

from notifications.outcome import Category, Failed, Misconfigured, Refused, Throttled
from notifications.replies import (
    APNS,
    FCM,
    MAILGUN,
    MEANINGS,
    SENDGRID,
    SES,
    SMTP,
    WEB_PUSH,
    Row,
    SmtpStep,
    _smtp_row,
    confirms_gone,
    of_api,
    of_bounce,
    of_smtp,
    outcome,
)

TO = "ada@reader.example"
APIS: Mapping[str, tuple[Row, ...]] = {
    "sendgrid": SENDGRID,
    "mailgun": MAILGUN,
    "aws-ses": SES,
    "apns": APNS,
    "fcm": FCM,
    "web-push": WEB_PUSH,
}
WITHOUT_CODE = {"mailgun"}


def api_rows() -> Iterator[tuple[str, Row]]:
    for name, rows in APIS.items():
        for row in rows:
            yield name, row


def steps(text: str) -> tuple[SmtpStep, int, str]:
    step, status, words = text.split(maxsplit=2)
    assert step in get_args(SmtpStep)
    return step, int(status), words  # type: ignore[return-value]  # it is one of them


@pytest.mark.parametrize("row", SMTP, ids=lambda row: row.example)
def test_a_row_decides_the_reply_of_its_example(row: Row) -> None:
    step, status, text = steps(row.example)
    assert _smtp_row(step, status, text, TO, "Hello") is row
    assert row.source.startswith("https://")


@pytest.mark.parametrize(("api", "row"), list(api_rows()), ids=lambda value: getattr(value, "example", value))
def test_a_row_decides_the_answer_of_its_example(api: str, row: Row) -> None:
    status, _, rest = row.example.partition(" ")
    code, _, words = ("", "", rest) if api in WITHOUT_CODE else rest.partition(" ")
    assert of_api(APIS[api], int(status), code, words) is row
    assert row.source.startswith("https://")


@pytest.mark.parametrize("rows", APIS.values(), ids=APIS)
def test_every_status_that_refuses_has_a_row(rows: tuple[Row, ...]) -> None:
    for status in (*range(300, 400), *range(400, 500)):
        assert of_api(rows, status, "Something", "said").category in MEANINGS


def test_every_category_has_a_meaning_and_only_one_suppresses() -> None:
    assert set(MEANINGS) == set(get_args(Category))
    assert [name for name, meaning in MEANINGS.items() if meaning.suppresses] == ["gone"]
    assert [name for name, meaning in MEANINGS.items() if not meaning.is_tried_again] == ["gone", "refused", "content"]


@pytest.mark.parametrize("category", MEANINGS)
@pytest.mark.parametrize("about_message", [True, False])
def test_what_follows_from_a_category_is_what_its_outcome_does(category: Category, about_message: bool) -> None:
    made = outcome(category, "550", "said", about_message=about_message)
    match made:
        case Refused():
            assert not MEANINGS[category].is_tried_again
            assert made.recipient_is_gone == MEANINGS[category].suppresses
        case Throttled() | Failed():
            assert MEANINGS[category].is_tried_again
        case Misconfigured():
            assert not about_message
    assert not isinstance(made, Failed) or not about_message or made.concerns == "recipient"


# Replies as people report them, beyond the examples: what they mean, whoever they are to.
REPORTED: list[tuple[str, Category]] = [
    ("RCPT 550 5.1.1 <{to}>: Recipient address rejected: User unknown in relay recipient table", "gone"),
    ("RCPT 550 5.1.1 <{to}>: no such user", "gone"),
    ("RCPT 550 5.1.1 <{to}>: Recipient address rejected: User unknown in virtual mailbox table", "gone"),
    (
        "RCPT 550 5.1.1 The email account that you tried to reach does not exist. Please try\n"
        "5.1.1 double-checking the recipient's email address for typos or\n"
        "5.1.1 unnecessary spaces. Learn more at\n5.1.1  https://support.google.com/mail/?p=NoSuchUser - gsmtp",
        "gone",
    ),
    ("RCPT 550 5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient {to} not found by SMTP address lookup", "gone"),
    ("RCPT 550 sorry, no mailbox here by that name (#5.1.1)", "gone"),
    ("RCPT 550 {to}... No such user", "gone"),
    ("RCPT 550 Requested action not taken: mailbox unavailable", "refused"),
    ("RCPT 550 5.7.1 Recipient rejected", "refused"),
    ("RCPT 550 5.4.1 Recipient address rejected: Access denied. [x.prod.protection.outlook.com]", "refused"),
    ("RCPT 550 5.2.1 The email account that you tried to reach is inactive", "gone"),
    ("RCPT 550 5.2.1 Mailbox cannot be accessed", "refused"),
    (
        "RCPT 550 5.2.1 The user you are trying to contact is receiving mail at a rate that\n"
        "5.2.1 prevents additional messages from being delivered.",
        "throttled",
    ),
    ("RCPT 550 5.2.1 this account is receiving mail at a rate that prevents delivery", "throttled"),
    ("RCPT 450 4.2.1 The user you are trying to contact is receiving mail too quickly", "throttled"),
    ("DATA 550 5.4.5 Daily user sending limit exceeded. https://support.google.com/a/answer/166852", "throttled"),
    ("DATA 550 5.4.5 daily sending limit exceeded", "throttled"),
    ("DATA 550 5.4.5 Daily SMTP relay limit exceeded for user", "throttled"),
    ("DATA 454 Throttling failure: Maximum sending rate exceeded", "throttled"),
    ("DATA 454 Throttling failure: Daily message quota exceeded", "throttled"),
    ("CONNECT 421 4.7.0 Too many concurrent SMTP connections; please try again later", "throttled"),
    ("CONNECT 550 too many connections from your host", "throttled"),
    ("RCPT 452 4.2.2 The email account that you tried to reach is over quota", "full"),
    ("RCPT 452 4.2.2 mailbox full", "full"),
    ("RCPT 552 5.2.2 user's mailbox quota exceeded", "full"),
    ("RCPT 550 Mailbox is full / Blocks limit exceeded / Inode limit exceeded", "full"),
    ("DATA 554 Quota exceeded (mailbox for user is full)", "full"),
    ("MAIL 550 5.2.1 your IP address is listed", "policy"),
    ("RCPT 550 5.2.1 Mailbox unavailable. Your IP address 192.0.2.1 is blacklisted using SPAMHAUS-XBL.", "policy"),
    ("RCPT 554 5.7.1 Service unavailable; Client host [192.0.2.1] blocked using zen.spamhaus.org", "policy"),
    (
        "CONNECT 554 Your access to this mail system has been rejected due to the sending MTA's poor reputation",
        "policy",
    ),
    ("RCPT 550 5.7.606 Access denied, banned sending IP [192.0.2.1]", "policy"),
    ("RCPT 450 4.7.1 Client host rejected: cannot find your reverse hostname, [192.0.2.1]", "policy"),
    ("DATA 550 5.7.26 This mail is unauthenticated: it did not pass DKIM or SPF", "policy"),
    ("RCPT 550 The sending IP (192.0.2.1) is listed on https://spamrl.com/", "policy"),
    ("RCPT 550 Too many invalid recipients", "policy"),
    ("RCPT 550 User {to} not listed in Domino Directory", "refused"),
    ("RCPT 554 5.7.1 <{to}>: Relay access denied", "configuration"),
    ("RCPT 550 5.7.54 SMTP; Unable to relay recipient in non-accepted domain", "configuration"),
    ("RCPT 553 sorry, that domain isn't in my list of allowed rcpthosts (#5.7.1)", "configuration"),
    ("RCPT 530 5.7.0 Must issue a STARTTLS command first", "configuration"),
    ("RCPT 550 5.7.1 Relaying denied. IP name lookup failed", "configuration"),
    ("DATA 550 5.7.1 Our system has detected that this message is likely unsolicited mail", "content"),
    ("DATA 554 5.7.1 message content rejected due to spam", "content"),
    ("DATA 552 5.7.0 This message was blocked because its content presents a potential security issue", "content"),
    ("MAIL 552 5.3.4 Message size exceeds fixed limit", "content"),
    ("MAIL 550 5.6.7 SMTPUTF8 addresses not permitted", "content"),
    ("RCPT 450 4.1.1 <{to}>: Recipient address rejected: unverified address", "transient"),
    ("RCPT 450 4.1.1 <{to}>: User unknown in local recipient table", "transient"),
    ("RCPT 450 5.1.1 <{to}>: User unknown", "transient"),
    ("RCPT 451 4.7.1 Greylisting in action, please come back later", "transient"),
    ("RCPT 550 5.1.1 temporarily not accepting mail, try again later", "transient"),
    ("RCPT 421 4.3.2 going down", "transient"),
    ("RCPT 554 delivery error: dd This user doesn't have a yahoo.com account ({to}) [0]", "gone"),
    ("DATA 554 delivery error: dd This user doesn't have a ymail.com account ({to}) [0]", "gone"),
    ("RCPT 552 1 Requested mail action aborted, mailbox not found", "gone"),
    ("RCPT 550 5.7.1 No such user!", "gone"),
    ("RCPT 550 5.5.0 User unknown", "gone"),
    ("RCPT 553 5.3.0 <{to}>... No such user here", "gone"),
    ("RCPT 550 unknown local part in <{to}>", "gone"),
    ("RCPT 554 delivery error: dd Not a valid recipient", "gone"),
    ("RCPT 550 5.1.1 Mail Refused - Address <{to}> Recipient Unknown", "gone"),
    ("RCPT 550 Rejected: 192.0.2.1 is listed at work.drbl.example.net", "policy"),
    ("RCPT 550 Rejected 192.0.2.1 found in dnsbl.lists.example", "policy"),
    ("RCPT 550 Ip frequency limited", "throttled"),
    ("RCPT 550 Domain frequency limited", "throttled"),
    ("RCPT 550 5.7.1 Rejected, see https://www.spamhaus.org/query/ip/192.0.2.1", "policy"),
    ("RCPT 550 5.1.1 Mail rejected. See https://www.barracudacentral.org/reputation?ip=192.0.2.1", "policy"),
    ("CONNECT 554 Blocked - see https://ipcheck.proofpoint.com/?ip=192.0.2.1", "policy"),
    ("RCPT 550 Verification failed for <news@blog.example>\nNo Such User Here\nSender verify failed", "configuration"),
    ("RCPT 550 5.1.1 Return path does not exist: user unknown", "configuration"),
    ("RCPT 550 MAIL FROM user unknown", "configuration"),
    (
        "RCPT 550 5.1.1 <{to}>: Recipient address rejected: unverified address: Address verification in progress",
        "transient",
    ),
    (
        "RCPT 550 5.1.1 <{to}>: Recipient address rejected: undeliverable address: "
        "connect to mx.reader.example[192.0.2.9]:25: Connection refused",
        "transient",
    ),
    ("RCPT 550 5.1.1 LDAP server unavailable", "transient"),
    ("RCPT 550 5.1.2 DNS lookup failed", "transient"),
    ("RCPT 550 5.1.1 Access denied", "refused"),
    ("RCPT 550 5.1.1 Rejected: local policy", "refused"),
    ("RCPT 550 5.1.1 Too many recipients", "refused"),
    ("RCPT 550 5.1.1 This user only accepts mail from known addresses", "refused"),
    ("RCPT 550 Your e-mail address is unknown to us", "refused"),
    ("RCPT 501 5.1.3 Bad recipient address syntax", "refused"),
    ("RCPT 550 5.2.1 Your account has been disabled", "refused"),
    ("RCPT 550 5.2.1 Mailbox is no longer accepting mail from you", "refused"),
    ("RCPT 550 5.2.1 unknown error", "refused"),
    ("RCPT 550 5.2.1 mailbox disabled, not accepting messages", "gone"),
]
LOCAL_PARTS = [
    "ada",
    "relay",
    "no.relay.denied",
    "spam",
    "blacklisted",
    "rate-limit",
    "daily.sending.limit.exceeded",
    "mailbox.full",
    "over-quota",
    "unknown",
    "user.unknown",
    "try.again.later",
    "greylisted",
    "spf",
    '"relay access denied"',
    "relay%20access%20denied",
    "5.1.1",
    "550",
]


@pytest.mark.parametrize(("reply", "category"), REPORTED, ids=lambda value: str(value)[:60])
def test_a_reply_that_people_report_means_the_same_whoever_it_is_to(reply: str, category: Category) -> None:
    for local in LOCAL_PARTS:
        for domain in ("mail.example", "relay.example", "blacklist.spam.example"):
            to = f"{local}@{domain}"
            step, status, text = steps(reply.replace("{to}", to))
            assert of_smtp(step, status, text, to, "Hello") == category, to


@pytest.mark.parametrize(
    "echo",
    ["<{to}>", "{to}", '"{to}"', "[{to}]", "({to})", "<{local}>", "'{local}'", "{encoded}", "rfc822;{to}", "{local}:"],
)
@pytest.mark.parametrize("word", ["relay", "spam", "blacklisted", "throttled", "disabled", "greylisted", "dmarc"])
def test_a_word_in_the_echoed_address_means_nothing(echo: str, word: str) -> None:
    to = f"{word}@{word}.example"
    said = echo.format(to=to, local=word, encoded=f"{word}%40{word}.example")
    assert of_smtp("RCPT", 550, f"5.7.1 {said} not accepted", to) == "refused"
    assert of_smtp("RCPT", 450, f"4.2.0 {said} not accepted", to) == "transient"
    assert of_smtp("RCPT", 550, f"5.1.1 {said} no such user", to) == "gone"
    assert of_smtp("RCPT", 550, f"5.1.1 no such user {said}", to) == "gone"


def test_the_part_before_the_at_alone_in_the_middle_of_a_sentence_means_nothing() -> None:
    for word in ("relay", "spam", "blacklisted", "throttled"):
        assert of_smtp("RCPT", 550, f"5.2.0 the box {word} takes nothing", f"{word}@mail.example") == "refused"


def test_a_subject_that_a_server_repeats_means_nothing() -> None:
    subject = "Daily sending limit exceeded: blacklisted, DMARC, relay access denied"
    said = f"5.6.0 The subject is not to our taste: {subject}"
    assert of_smtp("DATA", 554, said, TO, subject) == "content"


def test_another_address_to_which_mail_is_forwarded_means_nothing() -> None:
    assert of_smtp("RCPT", 550, "5.7.1 forwarded to <spam.relay@blacklist.example>: denied", TO) == "refused"


@pytest.mark.parametrize("status", range(400, 500))
def test_no_temporary_reply_is_for_good(status: int) -> None:
    for step in get_args(SmtpStep):
        for text in ("5.1.1 user unknown", "4.1.1 no such user", "no such user here", "4.1.10 null MX", "x"):
            assert MEANINGS[of_smtp(step, status, text, TO)].is_tried_again


@pytest.mark.parametrize("step", ["CONNECT", "MAIL"])
def test_before_the_recipient_was_named_nothing_is_about_them(step: SmtpStep) -> None:
    for text in ("5.1.1 user unknown", "5.2.1 disabled", "no such user", "5.1.10 null MX"):
        assert of_smtp(step, 550, text, TO) == "configuration"


@pytest.mark.parametrize(
    ("message", "code", "confirmed"),
    [
        (None, None, True),
        ("550 5.1.1 user unknown", None, True),
        ("smtp; 550 5.1.1 <ada@reader.example>... user unknown", "5.1.1", True),
        ("500 unknown recipient", "5.0.0", True),
        ("5.1.1 user unknown", "550", True),
        ("550 5.2.1 The user is receiving mail at a rate that prevents delivery", "5.2.1", False),
        ("smtp; 550 5.2.1 Your IP address 192.0.2.1 is blacklisted", "5.2.1", False),
        ("550 5.7.1 Message rejected", None, False),
        ("Message rejected", "5.7.1", False),
        ("552 5.2.2 mailbox full", None, False),
        ("550 5.7.26 Unauthenticated email, DMARC", None, False),
        ("554 5.7.1 Relay access denied", None, False),
        ("450 4.1.1 user unknown", None, False),
        ("smtp; 552 5.3.4 message too large", None, False),
        ("550 Requested action not taken: mailbox unavailable", None, True),
        ("550 5.5.0 Requested action not taken: mailbox unavailable", None, True),
        ("554 delivery error: dd This user doesn't have a yahoo.com account", None, True),
        ("550 5.4.1 Recipient address rejected: Access denied", None, False),
        ("550 Administrative prohibition - envelope blocked", None, False),
        ("554 Transaction failed - Reject due to policy restrictions", None, False),
        ("550 Rejected - see https://www.spamhaus.org/query/ip/192.0.2.1", None, False),
        ("550 Blocked by recipient", None, False),
        ("smtp; 550 4.4.7 Message expired: unable to deliver in 840 minutes", None, False),
        ("smtp; 550 gave up", "4.4.7", False),
        ("550 5.4.7 Delivery expired (message too old)", None, False),
        ("error dialing remote address: dial tcp 192.0.2.1:25: i/o timeout", "5.0.0", False),
        ("unable to get mx info: failed to get IPs from PTR record", "5.0.0", False),
    ],
)
def test_a_provider_that_calls_an_address_gone_is_believed_where_the_servers_words_allow_it(
    message: str | None, code: str | None, confirmed: bool
) -> None:
    assert confirms_gone(message, code, TO) is confirmed


def test_a_bounce_without_words_has_no_category() -> None:
    assert of_bounce(None, "5.1.1", TO) is None
    assert of_bounce("250 OK", None, TO) is None
