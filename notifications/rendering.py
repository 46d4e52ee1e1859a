"""Rendering: cleans what people wrote, fills in sentences, and lays out e-mails and push messages.

Input: templates of `notifications.yaml` and the content of a notification. Output: texts that are ready to send. No
name or title, whatever its characters, raises an error here, breaks a line, changes the direction of the text after it,
or becomes markup.
"""

import unicodedata
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined, meta, select_autoescape
from jinja2.sandbox import ImmutableSandboxedEnvironment

from notifications.links import ForeignLink, Site
from notifications.notice import ACTORS, Notice, Words

NAME_LENGTH = 50
"""How many characters of a person's name are shown."""

TEXT_LENGTH = 200
"""How many characters of other texts by people are shown within a sentence."""

SUBJECT_LENGTH = 150
MESSAGE_LENGTH = 4_000
PREHEADER_LENGTH = 120
BUTTON_LENGTH = 60

PUSH_TITLE_LENGTH = 65
PUSH_BODY_LENGTH = 180
PUSH_URL_LENGTH = 1_000
"""A longer URL is omitted: with it, the message might exceed the 4 kB limit of FCM, APNs and Web Push."""

NOBODY = "Someone"
"""The name of a person without a name."""

_JOINER = "\N{ZERO WIDTH JOINER}"
_ISOLATE, _END_OF_ISOLATE = "\N{FIRST STRONG ISOLATE}", "\N{POP DIRECTIONAL ISOLATE}"
# Emoji and some scripts need the joiners, and the isolates keep directions apart; what else formats can only do harm.
_KEPT_FORMATS = frozenset((_JOINER, "\N{ZERO WIDTH NON-JOINER}", _ISOLATE, _END_OF_ISOLATE))
# Letters and symbols by category that show nothing: a name made of them would be no name. And our own mark.
_BLANK = frozenset(("\u115f", "\u1160", "\u2800", "\u3164", "\uffa0", ACTORS))
_BREAKS = frozenset(("Cc", "Zl", "Zp", "Zs"))
_MARKS = frozenset(("Mn", "Me"))
_MOST_MARKS = 8
"""How many marks may stand on one letter: enough for any script, too few to cover the lines above and below."""
_RIGHT_TO_LEFT = frozenset(("R", "AL", "AN"))
_SKIN_TONES = frozenset(map(chr, range(0x1F3FB, 0x1F400)))
_ELLIPSIS = "…"


def line(text: str, longest: int) -> str:
    """Return a text as one line of visible characters, cut to a length; empty if it shows nothing.

    Breaks and runs of space become one space each. Marks of direction go, but for isolates, which are closed.
    """
    # So much may fall away at most; it bounds the work on a text of a megabyte.
    visible = " ".join(_visible(text[: 20 * longest]).split())
    if not any(unicodedata.category(character)[0] in "LNPS" for character in visible):
        return ""
    return _closed(_cut(visible, longest))


def phrase(text: str, longest: int) -> str:
    """Return a text as one line that can stand within a sentence: its direction does not change what is around it.

    Text with letters that run from right to left comes in an isolate, as Unicode advises for inserted text:
    https://www.unicode.org/reports/tr9/#Explicit_Directional_Isolates
    """
    clean = line(text, longest)
    if any(unicodedata.bidirectional(character) in _RIGHT_TO_LEFT for character in clean):
        return f"{_ISOLATE}{clean}{_END_OF_ISOLATE}"
    return clean


def paragraphs(text: str, longest: int) -> tuple[str, ...]:
    """Return a text as lines of visible characters, cut to a total length; lines that show nothing are omitted."""
    lines = []
    for one in text[: 20 * longest].splitlines():
        if longest <= 0:
            break
        if clean := line(one, longest):
            lines.append(clean)
            longest -= len(clean)
    return tuple(lines)


def people(names: Sequence[str | None], count: int, *, is_exact: bool = True) -> str:
    """Return the people as `Ada`, `Ada and Grace`, `Ada, Grace and Alan`, `Ada and 9 others`.

    Args:
        names: The clean names of the newest people, newest first; up to three are all named. `None` for an unknown one.
        count: The number of people.
        is_exact: Whether the number is exact.
    """
    known = [name for name in names if name]
    if count <= 3 and len(known) == count:
        *others, last = known
        return f"{', '.join(others)} and {last}" if others else last
    first = known[0] if known else NOBODY
    if count == 1:
        return first
    if not is_exact:
        return f"{first} and about {_rounded(count - 1):,} others"
    return f"{first} and {count - 1:,} {'other' if count == 2 else 'others'}"


class Sentence:
    """A template of `notifications.yaml`.

    Attributes:
        names: The variables that it uses.

    Raises:
        TemplateError: It is not a valid template.
    """

    def __init__(self, source: str) -> None:
        self._template = _SENTENCES.from_string(source)
        self.names: Final = frozenset(meta.find_undeclared_variables(_SENTENCES.parse(source)))

    def fill(self, values: Mapping[str, str]) -> str:
        """Return the text with the values of its variables, unescaped.

        Raises:
            TemplateError: It can't be rendered with these values.
        """
        return self._template.render(values).strip()


@dataclass(frozen=True, slots=True)
class EmailWords:
    """The content of an e-mail."""

    subject: str = field(repr=False)
    text: str = field(repr=False)
    html: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class PushWords:
    """The content of a push message; `url` is `None` if it opens the application itself."""

    title: str = field(repr=False)
    body: str = field(repr=False)
    url: str | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class Preview:
    """A notification as people get it, for `inkstream notifications preview`.

    Attributes:
        together: Title and message for two, three, ten and very many people; empty if the type is not grouped.
    """

    words: Words
    email: EmailWords
    push: PushWords
    together: tuple[tuple[str, str], ...]


class Renderer:
    """Lays out notifications for their channels.

    Args:
        site_name: The blog's name, as e-mails sign.
        site_url: Its address, `https://blog.example`, where paths of actions begin.
        hosts: Other hosts that actions may lead to.
    """

    def __init__(self, site_name: str, site_url: str, hosts: Collection[str] = ()) -> None:
        self._site_name = site_name
        self._site_url = site_url.rstrip("/") + "/"
        self._site = Site(site_url, hosts)

    def email(self, words: Words, *, unsubscribe_url: str | None = None) -> EmailWords:
        """Return an e-mail: its subject, and its body as text and as HTML.

        Args:
            words: What to say.
            unsubscribe_url: Where its last line leads; without it, there is none. Transactional mail has none.
        """
        subject = line(words.title, SUBJECT_LENGTH) or self._site_name
        values = {
            "subject": subject,
            "preheader": line(words.message, PREHEADER_LENGTH),
            "message": paragraphs(words.message, MESSAGE_LENGTH),
            "action_url": self._link(words.action_url),
            "action_text": line(words.action_text or "", BUTTON_LENGTH) or "Open",
            "unsubscribe_url": unsubscribe_url,
            "site_name": self._site_name,
            "site_url": self._site_url,
        }
        text, html = (_LAYOUTS.get_template(name).render(values) for name in ("email.txt.j2", "email.html.j2"))
        return EmailWords(subject, text, html)

    def push(self, words: Words) -> PushWords:
        """Return a push message, short enough for every provider."""
        url = self._link(words.action_url)
        return PushWords(
            title=line(words.title, PUSH_TITLE_LENGTH) or self._site_name,
            body=line(words.message, PUSH_BODY_LENGTH),
            url=url if url is not None and len(url) <= PUSH_URL_LENGTH else None,
        )

    def preview(self, notice: Notice) -> Preview:
        """Return the preview of a notice, such as the example of a type from `Rules.example`."""
        unsubscribe_url = None if notice.transactional else f"{self._site_url}notifications/unsubscribe"
        together: tuple[tuple[str, str], ...] = ()
        if gather := notice.gather:
            names = (notice.actor_name, "Barbara", "Edsger")
            groups = [people(names[: min(count, 3)], count) for count in (2, 3, 10)]
            groups.append(people(names, 5_234, is_exact=False))
            together = tuple((_with(gather.title, who), _with(gather.message, who)) for who in groups)
        email = self.email(notice.words, unsubscribe_url=unsubscribe_url)
        return Preview(notice.words, email, self.push(notice.words), together)

    def _link(self, url: str | None) -> str | None:
        """Return a whole URL, or `None` if it does not lead to the site."""
        if not url:
            return None
        try:
            return self._site.absolute(url)
        except ForeignLink:
            return None  # of an earlier release: what comes now is refused where it comes


def _visible(text: str) -> str:
    kept: list[str] = []
    marks = 0
    for character in text:
        category = unicodedata.category(character)
        marks = marks + 1 if category in _MARKS else 0
        if category in _BREAKS:
            kept.append(" ")
        elif character in _KEPT_FORMATS or (
            category not in ("Cf", "Cs", "Cn") and character not in _BLANK and marks <= _MOST_MARKS
        ):
            kept.append(character)
    return "".join(kept)


def _cut(text: str, longest: int) -> str:
    if len(text) <= longest:
        return text
    end = longest - 1
    # Not within an emoji, nor between a letter and its marks.
    while end > 0 and (_joins(text[end]) or text[end - 1] == _JOINER):
        end -= 1
    return text[:end].rstrip() + _ELLIPSIS


def _joins(character: str) -> bool:
    return character == _JOINER or character in _SKIN_TONES or unicodedata.category(character) in _MARKS


def _closed(text: str) -> str:
    """Close every open isolate, and remove ends without a beginning."""
    if _ISOLATE not in text and _END_OF_ISOLATE not in text:
        return text
    kept, depth = [], 0
    for character in text:
        if character == _ISOLATE:
            depth += 1
        elif character == _END_OF_ISOLATE:
            if not depth:
                continue
            depth -= 1
        kept.append(character)
    return "".join(kept) + _END_OF_ISOLATE * depth


def _rounded(number: int) -> int:
    """Round to two significant digits."""
    return round(number, 2 - len(str(number)))


def _with(pattern: str, who: str) -> str:
    return pattern.replace(ACTORS, who)


def _quoted(text: str) -> str:
    return f"“{text}”" if text else ""


# Plain texts: they are escaped where they are put into HTML.
_SENTENCES = ImmutableSandboxedEnvironment(undefined=StrictUndefined, autoescape=False)
_SENTENCES.filters["quoted"] = _quoted

_LAYOUTS = Environment(
    loader=FileSystemLoader(Path(__file__).with_name("templates")),
    autoescape=select_autoescape(enabled_extensions=("html.j2",), default=False),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)
