import unicodedata
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jinja2 import TemplateError

from notifications.notice import ACTORS, Words
from notifications.rendering import (
    NAME_LENGTH,
    PUSH_BODY_LENGTH,
    PUSH_TITLE_LENGTH,
    SUBJECT_LENGTH,
    Renderer,
    Sentence,
    line,
    paragraphs,
    people,
    phrase,
)

RENDERER = Renderer("Inkwell", "https://blog.example")
FSI, PDI, RLO, ZWJ = "\u2068", "\u2069", "\u202e", "\u200d"
# Also what is no text at all, as a lone half of a surrogate pair.
anything = st.text(st.characters(exclude_categories=()))
HARMFUL = {
    "markup": '<script>alert("x")</script></h1></td><img src=x onerror=alert(1)>',
    "an attribute's end": "\"' onmouseover='alert(1)' x=\"",
    "a template": "{{ 7 * 7 }}{% raw %}{# #}",
    "lines and headers": "Ada\r\nBcc: everybody@example.org\r\n\r\nHello",
    "marks of direction": f"Ada{RLO}moc.live{FSI}{FSI}\u200f\u061c",
    "ends of isolates": f"{PDI}{PDI}Ada",
    "right to left": "محمد",
    "10,000 letters": "A" * 10_000,
    "10,000 marks on a letter": "A" + "\u0301" * 10_000,
    "the mark for actors": f"Ada{ACTORS}",
    "half a letter": "Ada\ud800",
    "nul": "Ada\0",
}


def tags(html: str) -> list[tuple[str, tuple[str, ...]]]:
    found: list[tuple[str, tuple[str, ...]]] = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            found.append((tag, tuple(name for name, _ in attrs)))

        def handle_endtag(self, tag: str) -> None:
            found.append((f"/{tag}", ()))

    reader = Reader(convert_charrefs=True)
    reader.feed(html)
    reader.close()
    return found


def is_harmless_line(text: str) -> bool:
    depth = 0
    for character in text:
        depth += (character == FSI) - (character == PDI)
        category = unicodedata.category(character)
        if depth < 0 or category in ("Cc", "Cs", "Zl", "Zp") or character == ACTORS:
            return False
        if category == "Cf" and character not in (FSI, PDI, ZWJ, "\u200c"):
            return False
    return depth == 0


def said_by(name: str) -> Words:
    clean = phrase(name, NAME_LENGTH) or "Someone"
    return Words(f"{clean} answered", f"“{clean}” wrote something", "/posts/a", "Read")


@pytest.mark.parametrize("name", HARMFUL.values(), ids=HARMFUL)
def test_a_name_does_no_harm(name: str) -> None:
    words = said_by(name)
    email, push = RENDERER.email(words), RENDERER.push(words)
    assert tags(email.html) == tags(RENDERER.email(said_by("Ada")).html)
    assert email.text.count("\n") == RENDERER.email(said_by("Ada")).text.count("\n")
    assert is_harmless_line(email.subject)
    assert is_harmless_line(push.title)
    assert is_harmless_line(push.body)
    assert len(email.subject) <= NAME_LENGTH + 20
    assert len(email.html) < len(RENDERER.email(said_by("Ada")).html) + 4_000
    for text in (email.subject, email.text, email.html, push.title, push.body):
        text.encode()


@given(anything, st.integers(1, 60))
def test_any_text_becomes_a_harmless_line(text: str, longest: int) -> None:
    clean = line(text, longest)
    assert is_harmless_line(clean)
    assert clean == clean.strip()
    assert len(clean.replace(FSI, "").replace(PDI, "")) <= longest
    clean.encode()


@given(anything)
def test_what_is_clean_stays_as_it_is(text: str) -> None:
    once = line(text, 1_000)
    assert line(once, 1_000) == once


@given(anything, anything, anything)
def test_any_words_become_an_email_and_a_push_message(title: str, message: str, url: str) -> None:
    words = Words(title, message, url, title)
    email, push = RENDERER.email(words, unsubscribe_url=url), RENDERER.push(words)
    assert email.subject
    assert push.title
    assert is_harmless_line(email.subject)
    assert push.url is None or push.url.startswith(("http://", "https://"))
    for text in (email.subject, email.text, email.html, push.title, push.body, push.url or ""):
        text.encode()
    assert "script" not in {tag for tag, _ in tags(email.html)}


@pytest.mark.parametrize("nothing", ["", " \n\t", "\u200b\u200d", "\u3164\u2800", "\u0301", FSI + PDI, ACTORS])
def test_a_text_that_shows_nothing_is_empty(nothing: str) -> None:
    assert line(nothing, 50) == ""
    assert phrase(nothing, 50) == ""
    assert paragraphs(nothing, 50) == ()


@pytest.mark.parametrize(
    "name", ["Ada", "Søren Ó Móráin", "Nguyễn Thị", "山田 太郎", "👩‍💻 Zoë", "می‌خواهم", "O'Brien & <3"]
)
def test_a_persons_name_stays_what_it_is(name: str) -> None:
    assert phrase(name, NAME_LENGTH).strip(FSI + PDI) == name


def test_a_name_that_runs_from_right_to_left_turns_nothing_around_it() -> None:
    assert phrase("محمد", 50) == f"{FSI}محمد{PDI}"
    assert phrase("Ada", 50) == "Ada"


def test_a_text_is_cut_between_letters_and_never_within_one() -> None:
    assert line("introduction", 6) == "intro…"
    assert line("intro duction", 7) == "intro…"
    assert line("abcde\u0301f", 7) == "abcde\u0301f"
    assert line("abcde\u0301fg", 6) == "abcd…"
    assert line("ab👩‍💻cd", 5) == "ab…"


def test_a_message_keeps_its_lines() -> None:
    assert paragraphs("Hello\r\n\r\n  there,\nAda\x00", 100) == ("Hello", "there,", "Ada")
    assert paragraphs("Hello\nthere", 5) == ("Hello",)
    assert sum(map(len, paragraphs("word\n" * 100_000, 4_000))) <= 4_000


@pytest.mark.parametrize(
    ("names", "count", "said"),
    [
        (["Ada"], 1, "Ada"),
        (["Ada", "Grace"], 2, "Ada and Grace"),
        (["Ada", "Grace", "Alan"], 3, "Ada, Grace and Alan"),
        (["Ada", "Grace", "Alan"], 4, "Ada and 3 others"),
        (["Ada", "Grace", "Alan"], 10, "Ada and 9 others"),
        (["Ada", "Grace", "Alan"], 1_201, "Ada and 1,200 others"),
        ([None], 1, "Someone"),
        ([None, "Grace"], 2, "Grace and 1 other"),
        ([None, None], 2, "Someone and 1 other"),
        (["Ada", None, "Alan"], 3, "Ada and 2 others"),
        ([None, None, None], 12, "Someone and 11 others"),
    ],
)
def test_people_are_named_or_counted(names: list[str | None], count: int, said: str) -> None:
    assert people(names, count) == said


@pytest.mark.parametrize(("count", "said"), [(1_025, "1,000"), (5_234, "5,200"), (98_761, "99,000")])
def test_a_number_that_is_estimated_is_rounded(count: int, said: str) -> None:
    assert people(["Ada"], count, is_exact=False) == f"Ada and about {said} others"


def test_a_sentence_knows_its_variables() -> None:
    sentence = Sentence("{{ actors }} liked {{ title | quoted or 'your post' }}")
    assert sentence.names == {"actors", "title"}
    assert sentence.fill({"actors": "Ada", "title": "A <b>"}) == "Ada liked “A <b>”"
    assert sentence.fill({"actors": "Ada", "title": ""}) == "Ada liked your post"


@pytest.mark.parametrize("source", ["{{ actors", "{% if %}", "{{ actors | shouted }}"])
def test_what_is_no_template_is_refused(source: str) -> None:
    with pytest.raises(TemplateError):
        Sentence(source)


def test_a_template_can_not_reach_into_the_program() -> None:
    with pytest.raises(TemplateError):
        Sentence("{{ actors.__class__.__mro__ }}").fill({"actors": "Ada"})


def test_an_email_has_all_that_it_says_in_both_parts() -> None:
    words = Words("Ada answered", "First & foremost\nsecond", "/posts/a?b=1&c=2#d", "Read <it>")
    email = RENDERER.email(words, unsubscribe_url="https://blog.example/unsubscribe?t=1&u=2")
    assert email.subject == "Ada answered"
    for said in ("First & foremost", "second", "https://blog.example/posts/a?b=1&c=2#d", "Read <it>", "Inkwell"):
        assert said in email.text
    for said in (
        "First &amp; foremost",
        ">second<",
        'href="https://blog.example/posts/a?b=1&amp;c=2#d"',
        "Read &lt;it&gt;",
    ):
        assert said in email.html
    assert "https://blog.example/unsubscribe?t=1&u=2" in email.text
    assert 'href="https://blog.example/unsubscribe?t=1&amp;u=2"' in email.html


def test_an_email_without_action_and_unsubscription_has_no_button_and_no_such_line() -> None:
    email = RENDERER.email(Words("Ada answered", "Hello"))
    assert 'class="button"' not in email.html
    assert [tag for tag, _ in tags(email.html)].count("a") == 1
    assert email.text == "Ada answered\n\nHello\n\n-- \nInkwell\nhttps://blog.example/\n"


def test_an_email_loads_nothing() -> None:
    html = RENDERER.email(said_by("Ada")).html
    assert not {"img", "link", "script", "iframe"} & {tag for tag, _ in tags(html)}
    assert "url(" not in html


def test_every_element_of_an_email_is_closed() -> None:
    void = {"meta", "br"}
    open_tags: list[str] = []
    for tag, _ in tags(RENDERER.email(said_by("Ada"), unsubscribe_url="/u").html):
        if tag.startswith("/"):
            assert open_tags.pop() == tag[1:]
        elif tag not in void:
            open_tags.append(tag)
    assert open_tags == []


def test_a_mail_that_says_nothing_has_the_sites_name_as_its_subject() -> None:
    assert RENDERER.email(Words("\u200b", "")).subject == "Inkwell"
    assert RENDERER.push(Words("", "")).title == "Inkwell"


@pytest.mark.parametrize(
    ("url", "link"),
    [
        ("/posts/a", "https://blog.example/posts/a"),
        ("posts/a", "https://blog.example/posts/a"),
        ("https://other.example/a?b#c", None),
        ("/posts/a b\nc", "https://blog.example/posts/a%20bc"),
        ("/posts/ä", "https://blog.example/posts/%C3%A4"),
        ("/posts/%C3%A4", "https://blog.example/posts/%C3%A4"),
        ("/\\other.example", None),
        ("javascript:alert(1)", None),
        ("java\nscript:alert(1)", None),
        ("data:text/html,x", None),
        ("mailto:ada@example.org", None),
        ("http://[", None),
        ("https://", None),
        ("", None),
        (None, None),
    ],
)
def test_an_action_leads_to_a_page_or_nowhere(url: str | None, link: str | None) -> None:
    assert RENDERER.push(Words("Title", "Message", url)).url == link


def test_a_push_message_is_short_enough_for_every_provider() -> None:
    words = Words("𓀀" * 10_000, "𓀀" * 10_000, "/" + "a" * 8_000)
    push = RENDERER.push(words)
    assert (len(push.title), len(push.body), push.url) == (PUSH_TITLE_LENGTH, PUSH_BODY_LENGTH, None)
    assert len((push.title + push.body).encode()) < 1_024


def test_a_subject_is_short() -> None:
    assert len(RENDERER.email(Words("word " * 1_000, "")).subject) <= SUBJECT_LENGTH
