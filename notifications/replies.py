"""What a provider's reply means: one table for mail servers, APIs, push services and reported bounces.

Input: a status, a code and the text with it. Output: one of a closed set of categories, which decides whether the
message is retried and whether its recipient is suppressed. docs/decisions/0018-provider-replies.md says why the table
is our own. Pure: the first row that matches decides. Each row has its source and an example, which is a test.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from types import MappingProxyType
from typing import Final, Literal, NamedTuple
from urllib.parse import quote, unquote

from notifications.outcome import Category, Failed, Misconfigured, Outcome, Refused, Throttled

SmtpStep = Literal["CONNECT", "MAIL", "RCPT", "DATA"]
"""The SMTP command of a reply; `CONNECT` is all before `MAIL`, `DATA` all after `RCPT`."""


class Meaning(NamedTuple):
    """What follows from a category.

    Attributes:
        words: For a person who asks why a message did not arrive.
        suppresses: Whether nothing is sent to the recipient any more.
        is_tried_again: Whether the message is.
    """

    words: str
    suppresses: bool
    is_tried_again: bool


MEANINGS: Final[Mapping[Category, Meaning]] = MappingProxyType(
    {
        "gone": Meaning("the address or device does not exist any more", suppresses=True, is_tried_again=False),
        "refused": Meaning("refused, without a clear reason", suppresses=False, is_tried_again=False),
        "content": Meaning("this message's content was refused", suppresses=False, is_tried_again=False),
        "full": Meaning("the mailbox is full", suppresses=False, is_tried_again=True),
        "throttled": Meaning("too many messages in a short time", suppresses=False, is_tried_again=True),
        "policy": Meaning("our reputation, or a policy against us", suppresses=False, is_tried_again=True),
        "configuration": Meaning("our configuration is wrong", suppresses=False, is_tried_again=True),
        "transient": Meaning("a temporary fault", suppresses=False, is_tried_again=True),
    }
)
"""Each category, and what follows from it.

`full`, `policy`, `configuration` and `transient` count as attempts, unless they are about us: then the attempt is given
back, as it is for `throttled` (docs/notification-states.md). Operations get a log line
and a metric for `policy` and `configuration`.
"""

OURS: Final[frozenset[Category]] = frozenset({"policy", "configuration"})
"""The categories that need an operator's attention."""

_EVERY_STEP: Final[frozenset[SmtpStep]] = frozenset({"CONNECT", "MAIL", "RCPT", "DATA"})
_OF_US: Final[frozenset[SmtpStep]] = frozenset({"CONNECT", "MAIL"})
_OF_MESSAGE: Final[frozenset[SmtpStep]] = frozenset({"RCPT", "DATA"})
_RCPT: Final[frozenset[SmtpStep]] = frozenset({"RCPT"})
_DATA: Final[frozenset[SmtpStep]] = frozenset({"DATA"})

_RFC3463 = "https://www.rfc-editor.org/rfc/rfc3463"
_RFC5321 = "https://www.rfc-editor.org/rfc/rfc5321#section-4.2.3"
_IANA = "https://www.iana.org/assignments/smtp-enhanced-status-codes/"
_GMAIL = "https://support.google.com/a/answer/3726730"
_EXCHANGE = (
    "https://learn.microsoft.com/troubleshoot/exchange/email-delivery/ndr/non-delivery-reports-in-exchange-online"
)
_POSTFIX = "https://www.postfix.org/postconf.5.html"
_ZONE_MTA = "https://github.com/zone-eu/zone-mta/blob/master/config/bounces.txt"
_KUMOMTA = "https://github.com/KumoCorp/kumomta/blob/main/assets/community/bounces.toml"
_SES_SMTP = "https://docs.aws.amazon.com/ses/latest/dg/troubleshoot-smtp.html"


def _pattern(*words: str) -> re.Pattern[str]:
    return re.compile("|".join(words), re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Row:
    """One row: a reply that has all of these means that.

    Attributes:
        category: What it means.
        source: Where that is documented, or collected.
        example: A reply as it comes, which this row decides; of SMTP with the command before it.
        status: Of the reply code, or of the HTTP status; all of it.
        code: Of the enhanced code without its first digit (`1.1`), of the API's code, or of the push service's host.
        words: In the words, without addresses, URLs and names of hosts.
        steps: SMTP: to which commands.
        about_message: APIs: whether it concerns this message alone, as far as one reply shows.
    """

    category: Category
    source: str
    example: str
    status: re.Pattern[str]
    code: re.Pattern[str] | None = None
    words: re.Pattern[str] | None = None
    steps: frozenset[SmtpStep] = _EVERY_STEP
    about_message: bool = False


def _smtp(
    category: Category,
    source: str,
    example: str,
    status: str = "[45].*",
    code: str | None = None,
    words: re.Pattern[str] | None = None,
    steps: frozenset[SmtpStep] = _EVERY_STEP,
) -> Row:
    read = None if code is None else re.compile(code)
    return Row(category, source, example, status=re.compile(status), code=read, words=words, steps=steps)


_GREYLISTED = _pattern(r"gr[ea]y[ -]?list")
_FOR_THE_TIME_BEING = _pattern(
    r"temporar(?:y|ily)",
    r"\b(?:re)?try (?:\w+ ){0,3}(?:again|later)",
    r"resend (?:\w+ ){0,4}later",
    r"\bunverified (?:address|recipient)\b",
    r"\bverification (?:is )?(?:in progress|pending)\b",
    r"\btime[d-]? ?out\b",
    r"\bconnection refused\b",
    r"\b(?:lookup|look up|DNS|LDAP|database|directory|backend|internal|server) (?:\w+ ){0,3}"
    r"(?:fail|error|busy|down\b|unavailable|did not complete)",
    r"\bverification (?:service|server) (?:\w+ ){0,2}(?:fail|unavailable|down\b)",
    r"\blocal error\b|\b(?:not|un)[ -]?reachable\b",
)
_BY_RECIPIENT = _pattern(
    r"\b(?:blocked|black-?listed|rejected|refused) by (?:the )?(?:recipient|user|addressee)\b",
    r"recipient (?:has (?:blocked|rejected)|does not (?:accept|want))",
)
_RATE = _pattern(
    r"throttl",
    r"\bslow(?:ing)? down",
    r"\btoo (?:fast|quickly|frequent)",
    r"\btoo many (?:\w+ ){0,2}(?:connections|e-?mails|mails|messages|requests|sessions|deliveries)\b",
    r"\b(?:rate|frequency)\b.{0,16}\b(?:limit|exceed|too high|that prevents|reached)",
    r"\b(?:maximum|exceed\w*|unusual|sending|current|message|high|peak) (?:\w+ ){0,3}rate\b",
    r"\brate[ -]?limit",
    r"\b(?:daily|hourly|monthly|per[ -](?:day|hour|minute|second))\b.{0,60}\b(?:limit|quota|maximum)\b",
    r"\b(?:limit|quota|maximum)\b.{0,40}\b(?:per|each|a) (?:day|hour|minute|second)\b",
    r"\b(?:sending|messages?|smtp|relay|submission|outgoing|outbound|receive) (?:\w+ ){0,2}(?:limit|quota)\b",
)
_SPEED = _pattern(r"\bexceed\w* (?:\w+ ){0,4}(?:limit|quota)", r"\b(?:limit|quota) (?:\w+ ){0,2}(?:exceeded|reached)")
_FULL = _pattern(
    r"\b(?:mail ?box|inbox|storage|disk|account|user)\b.{0,40}\b(?:full|over ?quota|quota)\b",
    r"\bover[ -]?quota\b",
    r"\bout of storage",
    r"\bexceed\w*.{0,20}\bstorage\b",
    r"\bmail ?box\b.{0,24}\b(?:exceed|limit)",
    r"\bfull (?:mail ?box|inbox)\b",
)
_QUOTA = _pattern(r"\bquota (?:is )?(?:exceeded|violation)", r"\b(?:exceeds?|exceeded) (?:\w+ ){0,2}quota\b")
_SIZE = _pattern(
    r"\b(?:message|mail|size)\b.{0,24}\b(?:too (?:large|big|long)|exceed\w*)\b.{0,24}(?:size|limit|maximum|$)",
    r"\b(?:message|mail) (?:is )?too (?:large|big|long)\b",
    r"\bsize limit\b",
)
_REPUTATION = _pattern(
    r"\bblack[ -]?list",
    r"\bblock[ -]?list",
    r"\bdeny[ -]?list",
    r"\bDNS?BLs?\b",
    r"\bRBLs?\b",
    r"\breal-?time block",
    r"\bspam(?:haus|cop)\b",
    r"\bIP(?: address(?:es)?)?\b.{0,60}\b(?:(?<!not )listed|blocked|banned|rejected|denied|refused|not allowed)\b",
    r"\b(?:your|client|sending|connecting|remote|sender'?s?) (?:\w+ ){0,2}(?:IP|host|server|network|domain)\b"
    r".{0,60}\b(?:(?<!not )listed|blocked|banned|rejected|denied|refused)\b",
    r"\b\d{1,3}(?:\.\d{1,3}){3}\b.{0,40}\b(?:(?<!not )listed|blocked|banned)\b|\bbad IP\b",
    r"\b\d{1,3}(?:\.\d{1,3}){3} (?:\w+ ){0,2}found in\b",
    r"\breputation\b",
    r"\bbanned send",
    r"\bblocked using\b",
    r"\bunsolicited (?:\w+ ){0,3}originating",
    r"\b(?:user|spam) complaints\b",
    r"\btoo many (?:invalid|unknown|bad) (?:recipients|users)",
    r"\bAS\(?160126\d\d\)?",
    r"\bnot allowed to (?:connect|send)\b",
)
_SPAM = _pattern(r"\bspam(?:mer|ming|my)?\b", r"\bunsolicited\b", r"\bjunk ?mail\b", r"\bbulk mail\b")
_UNAUTHENTICATED = _pattern(
    r"\b(?:DMARC|DKIM|SPF)\b",
    r"\bsender policy framework\b",
    r"\bunauthenticated (?:e-?mail|mail|sender|message)",
    r"\breverse (?:DNS|lookup|hostname)",
    r"\bPTR\b",
    r"\brDNS\b",
    r"\bcannot find your\b",
    r"\bHELO\b.{0,40}\b(?:rejected|invalid|not found|denied)",
)
_RELAY = _pattern(
    r"\brelay(?:ing)?(?: access)?(?: (?:is|was|has been))? (?:denied|not (?:allowed|permitted|authori[sz]ed)|prohibited"
    r"|disallowed|disabled|rejected|forbidden)",
    r"\b(?:unable|not (?:allowed|permitted|authori[sz]ed)) to relay\b",
    r"\b(?:cannot|can't|do not|don't|will not|won't) relay\b",
    r"\bno relaying\b",
    r"\bfor relay\b",
    r"\brcpthosts\b",
    r"\bauthentication (?:is )?required\b",
    r"\brequires? authentication\b",
    r"\bmust (?:\w+ ){0,3}(?:STARTTLS|authenticat)",
    r"\b(?:client|user|sender) (?:was |is )?not authenticated\b",
    r"\bturn on SMTP auth",
)
_SENDER = _pattern(
    r"\b(?:envelope |return )?sender(?:'s)?(?: e-?mail)?(?: (?:address|domain))?\b(?:(?!recipient).){0,40}"
    r"\b(?:unknown|not found|does(?: not|n't) (?:exist|resolve)|rejected|invalid|denied|not (?:owned|verified)|refus)",
    r"\bdomain of sender\b",
    r"\bsender verif",
    r"\b(?:return[ -]path|(?:envelope|mail)[ -]from)\b.{0,40}"
    r"\b(?:unknown|not found|does(?: not|n't) (?:exist|resolve)|rejected|invalid|denied)",
)
_MAILBOX = r"(?:mail ?box(?:es)?|accounts?|users?|recipients?|address(?:es|ee)?)"
_CLOSED = r"(?:disabled|inactive|deactivated|discontinued|expired|closed|terminated|deleted|unknown)"
_DISABLED = _pattern(
    rf"\b{_MAILBOX}\b[^.;]{{0,40}}?\b(?:{_CLOSED}|no longer (?:exists?|valid|active|available|in use)"
    r"|does(?: not|n't) exist)\b",
    rf"\b{_CLOSED} {_MAILBOX}\b",
    rf"^\W*{_CLOSED}\W*$",
)
# Who says one of these may mean us, the message or a moment: then nobody is gone, whatever else is said.
_DOUBTFUL = _pattern(
    r"\b(?:(?:access |permission )?denied|polic(?:y|ies)|block(?:s|ed|ing)?)\b",
    r"\b(?:prohibit\w*|restrict\w*|not allowed|unauthori[sz]ed)\b",
    r"\b(?:authenticat|permission|refuses\b|message (?:was |is )?(?:refused|rejected)\b)",
    r"\brejects\b",
    r"\bonly (?:accepts?|allows?|receives?)\b|\baccept(?:s|ing|ed)? (?:\w+ ){0,2}from\b|\baccepts? only\b",
    r"\bmail from\b|\breturn[ -]path\b|\b(?:envelope )?from (?:address|domain|user)\b|\bsend(?:er|ers|ing)\b",
    r"\byour (?:\w+ ){0,2}(?:address|account|IP|server|domain|host|network|provider|key|e-?mail address)\b",
    r"\b(?:IP|ESP|TLS|DNS)\b",
    r"\btoo many\b|\bquota\b|\bspace\b|\blimit|\bexceed",
    r"\bsyntax\b",
    r"\b(?:message|mail|delivery)(?: has)? expired\b|\bconnect(?:ion|ing)?\b|\bdialing\b|\b(?:no|unable to get) mx\b",
    r"\bpresent(?:ly)?\b|\bat (?:this|the) (?:time|moment)\b|\bbusy\b",
)
_NOBODY = _pattern(
    r"\b(?:users?|recipients?|mail ?box(?:es)?|accounts?|address(?:es)?|addressee|person|local part)\b[^.;]{0,40}?"
    r"\b(?:unknown|not (?:found|known)|does(?: not|n['\u2019]t) (?:exist|have an? (?:\w+ )?(?:account|mail ?box))"
    r"|no longer (?:exists?|valid))\b",
    r"\b(?:unknown|no such|non-?existent) (?:local )?"
    r"(?:user|recipient|mail ?box|account|address(?:ee)?|person|id|local[ -]part|mail drop)\b",
    r"\bno (?:mail ?box|user|one|account|person) (?:here|by|with|of|under) (?:that|this|the)\b",
    r"\bno mail ?box here\b",
    r"\bnot a valid (?:user|recipient|mail ?box|account)\b",
)
_MALICIOUS = _pattern(
    r"\b(?:virus|malware|phish\w*|infected|potential security issue)\b",
    r"\bcontent\b.{0,24}\b(?:rejected|denied|blocked|not accepted|refused|restricted|policy)\b",
    r"\b(?:message|mail)\b.{0,24}\b(?:looks like|detected as|identified as|contains|is likely|considered)\b",
)

SMTP: Final[tuple[Row, ...]] = (
    # What it will not be for ever, whatever the code; and who it is that refuses.
    _smtp("transient", _ZONE_MTA, "RCPT 451 4.7.1 Greylisting in action", words=_GREYLISTED),
    _smtp(
        "configuration",
        "https://www.rfc-editor.org/rfc/rfc4954#section-6",
        "CONNECT 535 5.7.8 Authentication credentials invalid",
        "530|534|535|538",
    ),
    _smtp("refused", _ZONE_MTA, "RCPT 550 5.7.1 Blacklisted by recipient", "5..", words=_BY_RECIPIENT),
    # Words that stand above the code, as providers use 5.2.1, 5.4.5 and 5.7.1 for what these say.
    _smtp("throttled", _GMAIL, "RCPT 550 5.2.1 is receiving mail at a rate that prevents delivery", words=_RATE),
    _smtp("policy", _ZONE_MTA, "MAIL 550 5.2.1 your IP address is listed", words=_REPUTATION),
    _smtp(
        "policy", _GMAIL, "DATA 550 5.7.26 Unauthenticated email is not accepted, DMARC policy", words=_UNAUTHENTICATED
    ),
    _smtp("policy", _ZONE_MTA, "RCPT 550 5.7.1 we take no spam", "5..", words=_SPAM, steps=_OF_US | _RCPT),
    _smtp(
        "configuration",
        f"{_POSTFIX}#smtpd_relay_restrictions",
        "RCPT 554 5.7.1 Relay access denied",
        words=_RELAY,
    ),
    _smtp(
        "configuration",
        f"{_POSTFIX}#reject_sender_login_mismatch",
        "MAIL 553 5.7.1 Sender address rejected: not owned by user",
        "5..",
        words=_SENDER,
    ),
    _smtp("full", _KUMOMTA, "RCPT 550 Mailbox is full", words=_FULL),
    _smtp("content", _ZONE_MTA, "DATA 550 5.7.1 message contains a virus", "5..", words=_MALICIOUS, steps=_DATA),
    _smtp("content", _ZONE_MTA, "DATA 554 rejected as spam", "5..", words=_SPAM, steps=_DATA),
    # The enhanced code.
    _smtp("full", f"{_RFC3463}#section-3.3", "RCPT 452 4.2.2 no room left", code=r"2\.2"),
    _smtp("throttled", f"{_RFC3463}#section-3.5", "DATA 451 4.4.5 congested", code=r"4\.5"),
    _smtp("throttled", f"{_IANA} (X.7.28)", "RCPT 450 4.7.28 mail flood", code=r"7\.28"),
    _smtp("throttled", f"{_EXCHANGE} (5.2.121)", "RCPT 550 5.2.121 receive count", code=r"2\.12[12]"),
    _smtp("policy", f"{_IANA} (X.7.20 to X.7.26)", "DATA 550 5.7.23 validation failed", code=r"7\.2[0-6]"),
    _smtp("policy", f"{_EXCHANGE} (5.7.5xx to 5.7.7xx)", "RCPT 550 5.7.606 Access denied", code=r"7\.[567]\d\d"),
    _smtp("configuration", f"{_RFC3463}#section-3.2", "RCPT 553 5.1.8 domain is unknown", "5..", r"1\.[78]"),
    _smtp("configuration", f"{_IANA} (X.7.27)", "MAIL 550 5.7.27 null MX", "5..", r"7\.27"),
    _smtp(
        "configuration", f"{_IANA} (X.7.8 to X.7.14)", "DATA 550 5.7.9 mechanism too weak", "5..", r"7\.(8|9|1[0-4])"
    ),
    _smtp("transient", _ZONE_MTA, "RCPT 550 5.2.1 temporarily disabled", "5..", words=_FOR_THE_TIME_BEING),
    _smtp("refused", _POSTFIX, "RCPT 550 5.1.1 Access denied", "5..", r"1\.([126]|10)|2\.1", _DOUBTFUL, _OF_MESSAGE),
    _smtp("gone", f"{_RFC3463}#section-3.2", "RCPT 550 5.1.1 user unknown", "5..", r"1\.[126]", steps=_OF_MESSAGE),
    _smtp("gone", "https://www.rfc-editor.org/rfc/rfc7505", "RCPT 556 5.1.10 null MX", "5..", r"1\.10", steps=_RCPT),
    _smtp(
        "gone",
        f"{_RFC3463}#section-3.3",
        "RCPT 550 5.2.1 The account is disabled",
        "5..",
        r"2\.1",
        _DISABLED,
        _OF_MESSAGE,
    ),
    _smtp("content", f"{_RFC3463}#section-3.7", "DATA 554 5.6.0 conversion failed", "5..", r"6\.\d+"),
    _smtp(
        "content", "https://www.rfc-editor.org/rfc/rfc1870#section-6.1", "MAIL 552 5.3.4 too big", "5..", r"[23]\.[34]"
    ),
    # The words, where the code says nothing.
    _smtp("content", f"{_RFC5321}", "MAIL 552 Message size exceeds fixed limit", "5..", words=_SIZE),
    _smtp("full", _KUMOMTA, "RCPT 552 Quota exceeded", words=_QUOTA, steps=_RCPT),
    _smtp("throttled", _SES_SMTP, "DATA 454 You have exceeded your limit", words=_SPEED),
    _smtp("content", _RFC5321, "MAIL 552 action aborted", "552", "", steps=frozenset({"MAIL"})),
    _smtp("refused", _KUMOMTA, "RCPT 550 rejected by local policy", "5(?!52)..", words=_DOUBTFUL, steps=_OF_MESSAGE),
    # Sendmail and Yandex, for two, have 5.3.0 and 5.7.1 before such words.
    _smtp(
        "gone",
        "https://www.rfc-editor.org/rfc/rfc5321#appendix-D.1",
        "RCPT 550 No such user here",
        "5..",
        r"([01235]\.0|4\.1|7\.1)?",
        _NOBODY,
        _OF_MESSAGE,
    ),
    _smtp("full", _RFC5321, "RCPT 552 action aborted", "552", "", steps=_RCPT),
    _smtp("throttled", f"{_GMAIL} (421 4.7.0)", "RCPT 421 4.7.0 Try again later", "421", r"7\.\d+"),
    # What is left: the first digit, and who it can be about.
    _smtp("transient", f"{_RFC5321}", "RCPT 451 4.3.0 local error", "4.."),
    _smtp("configuration", f"{_RFC5321}", "MAIL 550 not for you", "5..", steps=_OF_US),
    _smtp("refused", f"{_RFC5321}", "RCPT 550 mailbox unavailable", "5..", steps=_OF_MESSAGE),
)
"""Replies of mail servers; the first row that matches decides."""


def _api(
    category: Category,
    source: str,
    example: str,
    status: str = "",
    code: str | None = None,
    words: re.Pattern[str] | None = None,
    *,
    about_message: bool = False,
) -> Row:
    read = None if code is None else re.compile(code)
    status_read = re.compile(status) if status else re.compile(r"\d*")
    return Row(category, source, example, status=status_read, code=read, words=words, about_message=about_message)


_SENDGRID = "https://www.twilio.com/docs/sendgrid/api-reference/how-to-use-the-sendgrid-v3-api/errors"

SENDGRID: Final[tuple[Row, ...]] = (
    _api("throttled", _SENDGRID, "429", "429"),
    # Its rules for addresses are not those of mail servers, so this shows nothing about the mailbox.
    _api("refused", _SENDGRID, "400 personalizations.0.to.0.email", "400", r"personalizations\.0\.to(\.0(\.email)?)?"),
    _api("configuration", _SENDGRID, "400 from.email", "400", r"from(\..*)?"),
    _api("content", _SENDGRID, "400 content", "400|413"),
    # 401 and 403 are the key, the sender or the account; 404, 406, 451 and redirects the URL or the account's region.
    _api("configuration", _SENDGRID, "403", "[1-4].."),
)
"""SendGrid: HTTP status, and the field of the error."""

_MAILGUN = "https://documentation.mailgun.com/docs/mailgun/quickstart-guide/responses"

MAILGUN: Final[tuple[Row, ...]] = (
    _api("throttled", _MAILGUN, "429", "429"),
    _api(
        "throttled",
        _MAILGUN,
        "403 is not allowed to send: request limit exceeded, try again after 1h",
        "40[03]",
        words=_pattern(r"\b(?:request|recipient|message|sending|hourly) limit exceeded"),
    ),
    _api(
        "configuration",
        _MAILGUN,
        "403 Sandbox subdomains are for test purposes only. Add the address to authorized recipients",
        "40[03]",
        words=_pattern(r"\bauthorized recipients\b"),
        about_message=True,
    ),
    _api(
        "configuration",
        _MAILGUN,
        "400 from parameter is not a valid address",
        "400",
        words=_pattern(r"^\W*from\b.{0,24}not a valid address"),
    ),
    _api("refused", _MAILGUN, "400 to parameter is not a valid address", "400", words=_pattern(r"^\W*to\W* parameter")),
    _api("content", _MAILGUN, "400 message is missing", "400|413"),
    # 401 and 403 are the key or the account; 404 is the domain, or the region's URL.
    _api("configuration", _MAILGUN, "401", "[1-4].."),
)
"""Mailgun: HTTP status and text."""

_SES = "https://docs.aws.amazon.com/ses/latest/APIReference-V2/API_SendEmail.html#API_SendEmail_Errors"
_SES_MESSAGES = "https://docs.aws.amazon.com/ses/latest/dg/troubleshoot-error-messages.html"

SES: Final[tuple[Row, ...]] = (
    _api(
        "throttled",
        _SES,
        "400 ThrottlingException",
        code="LimitExceededException|RequestLimitExceeded|Throttling|ThrottlingException|TooManyRequestsException",
    ),
    _api("throttled", _SES, "429", "429"),
    _api(
        "configuration",
        _SES_MESSAGES,
        "400 MessageRejected Email address is not verified.",
        code="BadRequestException|MessageRejected|ValidationError|ValidationException",
        words=_pattern(r"address(?:es)? (?:is|are) not verified"),
    ),
    _api(
        "refused",
        _SES_MESSAGES,
        "400 BadRequestException Domain contains dot-dot",
        code="BadRequestException|ValidationError|ValidationException",
        words=_pattern(
            r"\billegal address", r"\bdomain (?:contains|starts|ends)", r"\blocal (?:part|address) contains"
        ),
    ),
    _api(
        "content",
        _SES,
        "400 MessageRejected",
        code="BadRequestException|MessageRejected|ValidationError|ValidationException",
    ),
    # The account (AccountSuspendedException, SendingPausedException), the sender (MailFromDomainNotVerifiedException),
    # the configuration set (NotFoundException), the key or its rights (403), or a URL that is not the API's.
    _api("configuration", _SES, "400 AccountSuspendedException", "[1-4].."),
)
"""Amazon SES: HTTP status, the error's name and text."""

_APNS = "https://developer.apple.com/documentation/usernotifications/handling-notification-responses-from-apns"

APNS: Final[tuple[Row, ...]] = (
    _api("gone", _APNS, "410 Unregistered", "410", "Unregistered|ExpiredToken"),
    # "Verify that … the token matches the environment": as likely our setting as the device. So with the topic.
    _api("refused", _APNS, "400 BadDeviceToken", "400", "BadDeviceToken|DeviceTokenNotForTopic"),
    _api("configuration", _APNS, "400 BadTopic", code="BadTopic|MissingTopic|TopicDisallowed"),
    _api("configuration", _APNS, "403 InvalidProviderToken", "403"),
    # Without a reason it is not APNs that answers: the URL is wrong, or something stands in between.
    _api("configuration", _APNS, "404 404", "404|405|410", r"\d*"),
    _api("throttled", _APNS, "429 TooManyRequests", "429"),
    _api("transient", _APNS, "400 IdleTimeout", code="IdleTimeout"),
    _api("content", _APNS, "413 PayloadTooLarge", "[1-4].."),
)
"""APNs: HTTP status and reason."""

_FCM = "https://firebase.google.com/docs/reference/fcm/rest/v1/ErrorCode"
_FCM_TOKENS = "https://firebase.google.com/docs/cloud-messaging/manage-tokens"

FCM: Final[tuple[Row, ...]] = (
    _api("gone", _FCM, "404 UNREGISTERED", code="UNREGISTERED"),
    # Of one token it is another application's; of all of them our service account is of another project.
    _api("configuration", _FCM, "403 SENDER_ID_MISMATCH", code="SENDER_ID_MISMATCH", about_message=True),
    # The key of APNs or Web Push that the project keeps at Google: it concerns tokens of those alone.
    _api("configuration", _FCM, "401 THIRD_PARTY_AUTH_ERROR", code="THIRD_PARTY_AUTH_ERROR", about_message=True),
    _api("throttled", _FCM, "429 QUOTA_EXCEEDED", "429"),
    _api("configuration", _FCM, "403", "401|403"),
    # "It signals an invalid token only if the payload is completely valid": so the token has to be named.
    _api("gone", _FCM_TOKENS, "400 INVALID_ARGUMENT message.token", "400", words=_pattern(r"^message\.token$")),
    _api("content", _FCM, "400 INVALID_ARGUMENT", "400", "INVALID_ARGUMENT"),
    _api("refused", _FCM, "404", "[1-4].."),
)
"""FCM: HTTP status, error code, and the field with the error."""

_RFC8030 = "https://www.rfc-editor.org/rfc/rfc8030"
_WNS = "https://learn.microsoft.com/windows/apps/windows-app-sdk/notifications/push-notifications/troubleshooting"
_APPLE_WEB = (
    "https://developer.apple.com/documentation/usernotifications/"
    "sending-web-push-notifications-in-web-apps-and-browsers"
)
_AUTOPUSH = "https://mozilla-services.github.io/autopush-rs/errors.html"
_OF_APPLE, _OF_MICROSOFT = r"(.*\.)?push\.apple\.com", r"(.*\.)?notify\.windows\.com"

WEB_PUSH: Final[tuple[Row, ...]] = (
    _api("throttled", f"{_RFC8030}#section-8.4", "429", "429"),
    _api("throttled", _WNS, "406 wns2-par02p.notify.windows.com", "406", _OF_MICROSOFT),
    _api("gone", f"{_RFC8030}#section-7.3", "410", "404|410"),
    _api(
        "refused",
        _APPLE_WEB,
        "400 web.push.apple.com VapidPkHashMismatch",
        "40[013]",
        _OF_APPLE,
        _pattern(r"VapidPkHashMismatch"),
    ),
    _api(
        "configuration",
        _APPLE_WEB,
        "403 web.push.apple.com BadJwtToken",
        "40[013]",
        _OF_APPLE,
        _pattern(r"BadJwtToken|BadAuthorizationHeader|BadWebPushTopic"),
    ),
    _api("configuration", f"{_AUTOPUSH} (errno 109)", "401 updates.push.services.mozilla.com", "401|403"),
    _api("content", f"{_RFC8030}#section-7.2", "413", "413"),
    _api("refused", f"{_RFC8030}#section-5", "400", "[1-4].."),
)
"""Web Push: HTTP status, the push service's host, and the text."""

_REPLY = re.compile(r"(?:smtp;\s*)?([245]\d\d)[ -]+", re.IGNORECASE)
# Neither what an address begins with, `5.1.1@mail.example`, nor a part of an IP address.
_ENHANCED = re.compile(r"(?<![\w.])[(#]*([245])\.(\d{1,3}\.\d{1,3})(?![\w@%.+=-])[)]?[:\s-]*")
_ENHANCED_AT_END = re.compile(r"\(#([245])\.(\d{1,3}\.\d{1,3})\)")
# A link to who keeps lists of senders says what the reply's words may leave out.
_LIST = re.compile(
    r"\bhttps?://(?:[\w-]+\.)*(?:spamhaus\.(?:org|com)|spamcop\.net|barracudacentral\.org|abuseat\.org|sorbs\.net"
    r"|uceprotect\.net|ipcheck\.proofpoint\.com|csi\.cloudmark\.com|senderscore\.(?:org|net)|mailspike\.(?:org|net))\b\S*",
    re.IGNORECASE,
)
_URL = re.compile(r"\b(?:https?://|mailto:|www\.)\S*", re.IGNORECASE)
# Quoted, plain or percent-encoded before the `@`; a name or an address literal behind it.
_ADDRESS = re.compile(
    r'<?(?:"[^"\n]{0,80}"|(?<![^\s<>()\[\]",;:=])[^\s<>()\[\]",;:=]{1,200})(?:@|%40|=40)(?:\[[^\]\n]{0,80}\]|[^\s<>()\[\]\"\',;:=]{1,255})>?',
    re.IGNORECASE,
)
_HOST = re.compile(r"(?<![\w.-])(?:[a-z0-9_-]{1,63}\.){1,12}[a-z]{2,24}\b", re.IGNORECASE)
_BRACKETS = re.compile(r"<[^<>]{0,320}>")
_READ: Final = 2_000


@dataclass(frozen=True, slots=True)
class _Words:
    """What a server said of its own, and what it may have taken from us.

    Attributes:
        text: In one line, without codes, addresses, URLs and names of hosts.
        echoes: Where it may repeat the recipient's names: words within are no evidence.
        subject: The message's, in lower case: words that are part of it are no evidence, as servers repeat parts.
    """

    text: str
    echoes: tuple[tuple[int, int], ...]
    subject: str = ""

    def have(self, pattern: re.Pattern[str]) -> bool:
        return any(not self._is_echo(found) for found in pattern.finditer(self.text))

    def _is_echo(self, found: re.Match[str]) -> bool:
        within = any(start <= found.start() and found.end() <= end for start, end in self.echoes)
        return within or found[0].lower() in self.subject


def of_smtp(step: SmtpStep, status: int, text: str, recipient: str, subject: str = "") -> Category:
    """Return the meaning of a mail server's reply.

    The recipient's address never has a say, however it is repeated: whole, percent-encoded, in brackets or quotes, or
    the part before the `@` alone.

    Args:
        step: What was answered.
        status: Three digits, 400 or more.
        text: What came behind it, its lines joined.
        recipient: The address that we sent to.
        subject: The message's, which a server has seen from `DATA` on.
    """
    return _smtp_row(step, status, text, recipient, subject).category


def of_api(rows: Iterable[Row], status: int, code: str = "", words: str = "", recipient: str = "") -> Row:
    """Return the row of a table above that decides an HTTP reply; there is one for every status below 500.

    Args:
        rows: The provider's table.
        status: Of HTTP.
        code: What the table compares `code` with.
        words: What the provider said.
        recipient: The address that we sent to, of an e-mail.
    """
    said = _own_words(words, recipient, "") if recipient else _Words(words[:_READ], ())
    return _first(rows, str(status), code, said)


def of_bounce(message: str | None, code: str | None, recipient: str | None) -> Category | None:
    """Return the category of a bounce that a provider reports; `None` if the report has no text of the mail server.

    Args:
        message: The server's reply: `550 5.1.1 user unknown`, also behind `smtp;`, or without its first number.
        code: That number, or the enhanced code, where the provider has it by itself.
        recipient: Whom it bounced from.
    """
    row = _bounce_row(message, code, recipient)
    return None if row is None else row.category


def _bounce_row(message: str | None, code: str | None, recipient: str | None) -> Row | None:
    text = (message or "").strip()[:_READ]
    if not text:
        return None
    found = _REPLY.match(text)
    digits = found[1] if found else code[:3] if code and re.match(r"[245]\d\d\b", code) else "550"
    text = text[found.end() :] if found else text
    if code and re.fullmatch(r"[245]\.\d{1,3}\.\d{1,3}", code) and not _ENHANCED.match(text):
        text = f"{code} {text}"
    return _smtp_row("RCPT", int(digits), text, recipient or "", "") if digits[0] != "2" else None


def confirms_gone(message: str | None, code: str | None, recipient: str | None) -> bool:
    """Whether a server's words allow a provider's verdict that an address is gone for good, or there are none.

    Providers go by the first digit as well: what says rate, reputation or size is about no mailbox.
    """
    row = _bounce_row(message, code, recipient)
    if row is None or row.category == "gone":
        return True
    return row.category == "refused" and row.words is None and not _is_of_another_kind(message, code)


def outcome(
    category: Category, code: str, said: str, *, about_message: bool, retry_after: timedelta | None = None
) -> Outcome:
    """Return the outcome of a reply of this category.

    Args:
        category: What it means.
        code: The provider's.
        said: Its words, without anything personal.
        about_message: Whether it concerns this message alone, as far as one reply shows.
        retry_after: How long the provider asks to wait.
    """
    match category:
        case "gone" | "refused" | "content":
            return Refused(code, said, recipient_is_gone=MEANINGS[category].suppresses, category=category)
        case "throttled":
            return Throttled(code, said, retry_after)
        case "policy" | "configuration" if not about_message:
            return Misconfigured(code, said, category=category)
        case "full" | "policy" | "configuration":
            return Failed(code, said, may_have_arrived=False, concerns="recipient", category=category)
        case "transient":
            return Failed(code, said, may_have_arrived=False, concerns="recipient" if about_message else "provider")


def _is_of_another_kind(message: str | None, code: str | None) -> bool:
    """Whether the enhanced code is not of an address or mailbox for good (RFC 3463, sections 2 and 3)."""
    return re.search(r"\b(?:4\.\d{1,3}|5\.[3467])\.\d", f"{code or ''} {(message or '')[:80]}") is not None


def _smtp_row(step: SmtpStep, status: int, text: str, recipient: str, subject: str) -> Row:
    text = text[:_READ]
    said = _own_words(text, recipient, subject if step == "DATA" else "")
    found = _ENHANCED.match(text.lstrip()) or _ENHANCED_AT_END.search(_ADDRESS.sub(" ", text))
    # RFC 2034, section 4: the first digits are the same. Where they aren't, the reply's own decides.
    enhanced = found[2] if found and found[1] == str(status)[0] else ""
    return _first((row for row in SMTP if step in row.steps), str(status), enhanced, said)


def _first(rows: Iterable[Row], status: str, code: str, said: _Words) -> Row:
    for row in rows:
        if not row.status.fullmatch(status):
            continue
        if row.code is not None and not row.code.fullmatch(code):
            continue
        if row.words is None or said.have(row.words):
            return row
    raise ValueError(f"no row for the status {status}")


def _own_words(text: str, recipient: str, subject: str) -> _Words:
    """Remove from a reply what the server did not write itself: addresses, URLs, host names, codes."""
    local, _, domain = recipient.rpartition("@")
    names = [name for name in (recipient, local, unquote(local), domain) if name]
    lines = [_ENHANCED.sub("", line.strip(), count=1) for line in text[:_READ].splitlines()]
    plain = _LIST.sub("blocklist", " ".join(" ".join(lines).split()))
    bare = plain
    for whole in {recipient, quote(recipient, safe="", errors="replace")} - {""}:
        bare = re.sub(re.escape(whole), " ", bare, flags=re.IGNORECASE)
    for pattern in (_URL, _ADDRESS, _BRACKETS, *map(_alone, names)):
        bare = pattern.sub(" ", bare)
    # Who has repeated the address already says the same word of its own; else a word that is in it may be its.
    repeated = bare != _URL.sub(" ", plain)
    echoes = [] if repeated else names
    bare = " ".join(_HOST.sub(" ", bare).split())
    found = (found for name in echoes for found in re.finditer(re.escape(name.strip('"')) or "$", bare, re.IGNORECASE))
    return _Words(bare, tuple(echo.span() for echo in found), subject.lower())


def _alone(name: str) -> re.Pattern[str]:
    """Match a name at the place of an address: in quotes or brackets, or at the start before a colon or dots."""
    written = re.escape(name)
    return re.compile(rf"^{written}\s*(?::|\.\.\.)|[\"'`(\[<]{written}[\"'`)\]>]", re.IGNORECASE)
