"""The time of every pure function grows with the length of what it is given, and no faster, whatever that is.

Each function gets hostile texts of two lengths, one eight times the other. Eight times the work is linear, 64 times is
quadratic; more than 24 times fails. No time is asserted, so a slow or busy machine changes nothing; what the long text
takes within a millisecond is no measurement, and passes.

A new pure function that reads what others write is one more line in `FUNCTIONS`.
"""

import json
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from typing import Any

import httpx
import pytest

from dev.inbox import pages
from enrich import traffic_source
from enrich.bots import recognise
from enrich.errors import frames, normalised
from enrich.ip_address import read_ip
from enrich.searches import normalized
from enrich.traffic_source import app_of, find
from enrich.user_agent import device
from enrich.written_dates import without_dates
from notifications import links, preferences, replies, rules, unsubscribing
from notifications.messages import Email
from notifications.notice import Words
from notifications.quiet_hours import understand, zone_named
from notifications.receipts import receipt
from notifications.rendering import Renderer, line, paragraphs, phrase
from ops.commands.settings import masked_url
from ops.notifications import masking
from providers.email import addresses, ses
from providers.http import retry_after
from providers.push import web_push
from schemas import email_address, identity, not_json
from tests.fuzz.edge import EVENTS, edge
from tests.fuzz.events import Record

SHORT, LONG = 1_000, 8_000
MOST = 3 * LONG / SHORT
NOISE = 0.001

PIECES = (
    *"a1-_.'\"@:/(<[+=?&%# \n\\;,|é",
    "a@", "a-", "a.", "1.", "1:", "::", "a:", "a/", "../", "ß1", "?a=", "&a=", "a=b;", "http://", "://", "eyJ", "sha1-",
    "/tmp/", "/.pnpm/", "<id>", "<id>,", "at x (", "at a (b:1:1)\n", ' File "a", line 1\n', "$$Lambda$", "x.js:1:1\n",
    "Jan 5 ", "5 ", "Mon, ", "2026-01-05 ", "14:04:05 ", "(UTC) ", "datetime.datetime(", "code ", "errno 1",
    "SQLSTATE[", "Android 1; ", "Mozilla/5.0 (Linux; Android 1; a ", "like Gecko; ", "bot", "okhttp/4 ", "[at]",
    "compatible; ", "www.", "google.de.", "fb_", "utm_source=a&", "relay ", "5.1.1 ", "#a:", "token", "token=",
    "password=", "to ", "<recipient>", "%40", "<head ", "\u0301\u0327", "\u200d", "\u2066", "\ud800", "\u202e",
    "=?utf-8?b?", "{{", "{%",
)  # fmt: skip

MAIL = Email(
    key="key",
    to="ada@example.org",
    sender="Blog <blog@example.org>",
    subject="A new post",
    text="text",
    html="<p>text</p>",
    unsubscribe_url=None,
    metadata={},
)
RENDERER = Renderer("Blog", "https://blog.example")
LINKS = unsubscribing.UnsubscribeLinks("https://blog.example/unsubscribe", "a key of the tests")


def mail(**fields: str) -> Email:
    values = {name: getattr(MAIL, name) for name in MAIL.__dataclass_fields__}
    return Email(**values | fields)


def found(url: str | None = None, referrer: str | None = None, source: str | None = None) -> None:
    traffic_source._landing.cache_clear()
    traffic_source._referrer.cache_clear()
    find(url, referrer, source, source, source)


def read_link(token: str) -> None:
    with suppress(unsubscribing.BadLink):
        LINKS.key(token)


def zone(name: str) -> None:
    with suppress(ValueError):
        zone_named(name)


def address(text: str) -> None:
    with suppress(ValueError):
        email_address.read(text)


def link(text: str) -> None:
    with suppress(links.ForeignLink):
        links.DEVELOPMENT_SITE.absolute(text)


def wait(value: str) -> None:
    with suppress(UnicodeError):
        retry_after(httpx.Response(429, headers=[("retry-after", value.replace("\n", " "))]))


FUNCTIONS: dict[str, Callable[[str], object]] = {
    "messages of errors": normalised,
    "stacks": frames,
    "lines of stacks": lambda text: frames(f"at f ({text}.js:1:1)\n" * 3),
    "dates": without_dates,
    "bots": recognise,
    "devices": device,
    "apps": app_of,
    "URLs": lambda text: found(url=text),
    "queries": lambda text: found(url=f"https://blog.example/?{text}"),
    "referrers": lambda text: found(referrer=f"https://{text}"),
    "apps of referrers": lambda text: found(referrer=f"android-app://{text}"),
    "sources": lambda text: found(source=text),
    "searches": normalized,
    "names of types": rules._TYPE.fullmatch,
    "lines": lambda text: line(text, 2_000),
    "phrases": lambda text: phrase(text, 2_000),
    "paragraphs": lambda text: paragraphs(text, 4_000),
    "e-mails": lambda text: RENDERER.email(Words(text, text, text, text), unsubscribe_url=text),
    "push messages": lambda text: RENDERER.push(Words(text, text, text, text)),
    "links to unsubscribe": read_link,
    "time zones": zone,
    "what a report says": lambda text: receipt.without_addresses(text, "ada@example.org"),
    "recipients of reports": lambda text: receipt.without_addresses("a" * 400, text),
    "links of reports": lambda text: receipt._link(text, "ada@example.org"),
    "what a provider says": lambda text: addresses.without_personal(text, MAIL),
    "recipients": lambda text: addresses.without_personal("a" * 400, mail(to=text)),
    "subjects": lambda text: addresses.without_personal("a" * 400, mail(subject=text)),
    "addresses": lambda text: addresses.address(mail(to=text)),
    "senders": lambda text: addresses.address(mail(sender=f"{text} <blog@example.org>")),
    "headers": addresses.one_line,
    "names of errors": lambda text: ses._NAME_OF_ERROR.fullmatch(text),
    "replies of mail servers": lambda text: replies.of_smtp("RCPT", 550, text, "ada@example.org", "A new post"),
    "replies to recipients": lambda text: replies.of_smtp("DATA", 550, "a" * 400, text, text),
    "replies of providers": lambda text: replies.of_api(replies.MAILGUN, 400, words=text, recipient="ada@example.org"),
    "reported bounces": lambda text: replies.confirms_gone(text, text, "ada@example.org"),
    "addresses of requests": address,
    "links of requests": link,
    "pictures of actors": links.picture,
    "quiet hours": lambda text: understand(text, text, text),
    "preferences": preferences.read,
    "ids of producers": identity.of_producer,
    "ids of requests": identity.of_request,
    "what is not JSON": lambda text: not_json.cause(text.encode(errors="replace"), "expected value at line 1 column 2"),
    "JSON within JSON": not_json.encoded_again,
    "IP addresses": read_ip,
    "hosts of push services": web_push._NAME.fullmatch,
    "times to wait": wait,
    "masked texts": masking.without_addresses,
    "masked addresses": masking.masked_address,
    "masked settings": lambda text: masked_url(f"postgresql://a:b@c/d?{text}"),
    "pages of the inbox": pages._HEAD.search,
}


def cost(function: Callable[[str], object], text: str, calls: int = 3) -> float:
    """Return the least CPU time of some calls, in seconds."""

    def once() -> float:
        started = time.process_time()
        function(text)
        return time.process_time() - started

    return min(once() for _ in range(calls))


def of_length(piece: str, length: int) -> str:
    return (piece * length)[:length]


def assert_linear(function: Callable[[str], object], piece: str) -> None:
    long = of_length(piece, LONG)
    took = cost(function, long, calls=1)
    if took <= NOISE:
        return
    limit = MOST * max(cost(function, of_length(piece, SHORT)), NOISE / MOST)
    if took >= limit:  # other programs may have slowed this one call
        took = cost(function, long)
    assert took < limit, f"{LONG / SHORT:.0f} times the length took {MOST * took / limit:.0f} times as long"


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_takes_time_by_the_length_of_what_it_reads(name: str) -> None:
    for piece in PIECES:
        with_context = f"{name}, {piece!r}"
        try:
            assert_linear(FUNCTIONS[name], piece)
        except AssertionError as error:
            raise AssertionError(f"{with_context}: {error}") from None


@cache
def strings(event_type: str) -> tuple[tuple[str, ...], ...]:
    """The places of all strings in an event's example."""

    def places(value: Any, place: tuple[str, ...]) -> list[tuple[str, ...]]:
        if isinstance(value, dict):
            return [found for name, part in value.items() for found in places(part, (*place, name))]
        return [place] if isinstance(value, str) else []

    return tuple(places(example(event_type), ()))


def example(event_type: str) -> dict[str, Any]:
    _, event = EVENTS[event_type]
    examples: Any = event.schema.model_config["json_schema_extra"]
    payload: dict[str, Any] = json.loads(json.dumps(examples["examples"][0]))
    return payload


@pytest.mark.parametrize("event_type", EVENTS)
def test_an_event_takes_time_by_its_length_whichever_string_is_hostile(event_type: str) -> None:
    topic, _ = EVENTS[event_type]

    def take(text: str) -> None:
        traffic_source._landing.cache_clear()
        traffic_source._referrer.cache_clear()
        for place in strings(event_type):
            payload = example(event_type)
            part = payload
            for name in place[:-1]:
                part = part[name]
            part[place[-1]] = text
            value = json.dumps(payload).encode()
            edge(topic.name).take(Record(value, [("ce_type", event_type.encode()), ("ce_id", b"event")]))

    for piece in ("a", ".", "a.", "@", "-", "1", "\u0301\u0327", "5 Jan ", "https://a.", " "):
        assert_linear(take, piece)
