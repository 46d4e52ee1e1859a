"""A sample blog: its posts, its people and their devices, where they come from and which errors occur there.

Input: a random generator. Output: choices as likely as on a real blog: few posts are read by many, most people come
from a search engine, and the same errors return with other ids and line numbers. The blog is the same in every run.
"""

import json
from base64 import urlsafe_b64encode
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from random import Random
from typing import Generic, NamedTuple, TypeVar
from uuid import UUID

import yaml

from notifications.preferences import DEFAULTS, Preferences, QuietHours
from schemas.notifications import Channel, Device, Platform

SITE = "https://blog.example"
_DATA = Path(__file__).parent / "data"
_POSTS = 200
_PEOPLE = 400
_AUTHORS = 40

T = TypeVar("T")


class Weighted(Generic[T]):
    """Things to choose from, some more often than others."""

    def __init__(self, pairs: Sequence[tuple[float, T]]) -> None:
        self._things = [thing for _, thing in pairs]
        self._bounds = list(accumulate(weight for weight, _ in pairs))

    def choose(self, random: Random) -> T:
        """Return one of them."""
        return random.choices(self._things, cum_weights=self._bounds)[0]


class Person(NamedTuple):
    """Somebody with an account.

    Attributes:
        id: The account.
        name: As others see it.
        email: The address.
        devices: Where push messages reach them; many have none.
        preferences: What they want to be told, and when; most have never looked at that.
    """

    id: str
    name: str
    email: str
    devices: tuple[Device, ...] = ()
    preferences: Preferences = DEFAULTS


class Post(NamedTuple):
    """A published post."""

    id: str
    slug: str
    title: str
    author: Person


class Visitor(NamedTuple):
    """A browser or a bot, at an address; `person` is who is signed in there."""

    user_agent: str
    ip_address: str
    person: Person | None


class Arrival(NamedTuple):
    """How a visitor reaches a post: the page before, and what is added to the post's address."""

    referrer: str | None
    query: str


class Failure(NamedTuple):
    """An error that returns.

    Attributes:
        service: The service that it happens in.
        name: The error's name.
        message: Its message; `{id}`, `{number}` and `{email}` differ every time.
        frames: The service's own frames, `function file`, innermost first.
        endpoint: The request that it breaks, method and path; empty if there is no such request.
        level: The level it is logged at.
    """

    service: str
    name: str
    message: str
    frames: tuple[str, ...]
    endpoint: str
    level: str


_SUBJECTS = (
    "TypeScript", "React Hooks", "PostgreSQL", "Kubernetes", "Rust", "GraphQL", "Redis", "Kafka", "CSS Grid", "Docker",
    "Python Type Hints", "WebAssembly", "Next.js", "MongoDB", "Terraform", "gRPC", "Vue 3", "Svelte", "SQLite", "Nginx",
    "Observability", "Feature Flags", "Web Accessibility", "OAuth 2.1", "Event Sourcing", "Vector Search", "HTTP/3",
    "Git Worktrees", "Property Testing", "Load Testing",
)  # fmt: skip
_HEADLINES = (
    "Introduction to {}", "{} in Production: What We Learned", "A Gentle Guide to {}", "{} Without Tears",
    "Ten Mistakes with {}", "Debugging {} at Three in the Morning", "{}: the Parts Nobody Reads", "Migrating to {}",
    "Why We Moved Away from {}", "{} by Example",
)  # fmt: skip
_FIRST_NAMES = (
    "Ada", "Alan", "Amara", "Barbara", "Chen", "Dennis", "Edsger", "Fatima", "Grace", "Hedy", "Ines", "Joan", "Ken",
    "Leslie", "Margaret", "Niklaus", "Olga", "Priya", "Radia", "Sofia", "Tariq", "Ursula", "Vint", "Wei", "Yuki",
)  # fmt: skip
_LAST_NAMES = (
    "Adeyemi", "Bauer", "Costa", "Dubois", "Eriksen", "Fischer", "García", "Haddad", "Ivanova", "Jensen", "Kowalski",
    "Lindqvist", "Moreau", "Nakamura", "Okafor", "Patel", "Rossi", "Santos", "Tanaka", "Verma", "Weber", "Yamamoto",
)  # fmt: skip

# Networks of internet providers, by the first half of their addresses; all in the development geo database.
_NETWORKS: tuple[tuple[float, str, str], ...] = (
    (9, "US", "73.158 24.4 98.210 71.202 108.28 174.63 68.48 76.102 67.180"),
    (6, "IN", "49.36 59.90 106.51 117.200 122.160 27.60"),
    (5, "DE", "91.10 93.192 79.194 87.144 84.160 78.50 95.90"),
    (4, "GB", "86.150 82.30 90.200"),
    (3, "FR", "90.60 82.64 88.160 83.200 81.220"),
    (3, "BR", "177.40 189.60 187.20 201.17"),
    (2, "CA", "99.236 99.230 142.110 70.50 184.150 24.200"),
    (2, "JP", "126.70 133.20 153.150 219.100"),
    (2, "ES", "2.136 88.0 80.30"),
    (1.5, "IT", "151.30 79.40"),
    (1.5, "AU", "1.120 58.160 110.140"),
    (1.5, "NL", "83.80"),
    (1.5, "PL", "95.160 31.0"),
    (1.5, "VN", "14.160 113.160 171.240"),
    (1, "KR", "175.220 211.200"),
    (1, "ID", "36.70 114.120"),
    (1, "TR", "85.100 78.170"),
    (1, "SE", "83.250"),
    (0.7, "NO", "84.210 188.150"),
    (0.7, "NG", "197.210"),
    (0.5, "AR", "190.190"),
    (0.5, "NZ", "118.90"),
    (0.5, "MA", "41.140"),
)

_DEVICES = Weighted[tuple[Platform, ...]](
    [(40, ()), (22, ("android",)), (18, ("ios",)), (10, ("web",)), (6, ("ios", "web")), (4, ("android", "web"))]
)
_MAIL, _PUSH = frozenset[Channel](("email",)), frozenset[Channel](("push",))
_PREFERENCES = Weighted[Preferences](
    [
        (80, DEFAULTS),
        (5, Preferences(channels_off=_PUSH)),
        (4, Preferences(channels_off=_MAIL)),
        (4, Preferences(types_off={"post_liked": _PUSH, "comment_liked": _PUSH})),
        (3, Preferences(types_off={"new_follower": _MAIL | _PUSH})),
        (2, Preferences(quiet_hours=QuietHours(start="22:00", end="07:00", time_zone="Europe/Berlin"))),
        (2, Preferences(quiet_hours=QuietHours(start="21:30", end="08:00", time_zone="America/New_York"))),
    ]
)
_REFERRERS = Weighted(
    [
        (30, "https://www.google.com/"),
        (4, "https://www.bing.com/"),
        (4, "https://duckduckgo.com/"),
        (1, "https://search.brave.com/"),
        (1, "https://www.ecosia.org/"),
        (5, "https://news.ycombinator.com/"),
        (3, "https://t.co/x7Kq2"),
        (3, "https://www.reddit.com/"),
        (3, "https://www.linkedin.com/"),
        (2, "https://mastodon.social/"),
        (1, "https://l.facebook.com/"),
        (1, "https://bsky.app/"),
        (4, "https://chatgpt.com/"),
        (2, "https://claude.ai/"),
        (2, "https://www.perplexity.ai/"),
        (1, "https://gemini.google.com/"),
        (3, "https://dev.to/some-author/a-reading-list"),
        (2, "https://github.com/some-team/some-project"),
    ]
)
_CAMPAIGNS = Weighted(
    [
        (5, "utm_source=newsletter&utm_medium=email&utm_campaign=weekly-digest"),
        (2, "utm_source=twitter&utm_medium=social&utm_campaign=launch-week"),
        (2, "utm_source=google&utm_medium=cpc&utm_campaign=typescript-course&gclid=Cj0KCQ"),
        (1, "utm_source=partner-blog&utm_medium=referral&utm_campaign=autumn"),
        (1, "fbclid=IwAR0sample"),
    ]
)
_REMARKS = (
    "Thank you, that was the missing piece.",
    "We tried the same last year, and ran into exactly this.",
    "Does it still hold with the new release?",
    "The second example does not compile for me.",
    "Best explanation that I have read so far!",
    "I doubt that this scales beyond one region.",
    "There is a typo in the third code block.",
    "Could you say more about how you measured it?",
)
_QUERIES = Weighted(
    [
        (8, "react hooks"),
        (6, "typescript generics"),
        (5, "docker compose healthcheck"),
        (5, "postgres index"),
        (4, "kubernetes ingress"),
        (4, "rust lifetimes"),
        (4, "redis vs kafka"),
        (3, "css grid centre"),
        (3, "next.js caching"),
        (3, "oauth refresh token"),
        (2, "mongodb aggregation"),
        (2, "event sourcing example"),
        (2, "type hints"),
        (1, "sqlite in production"),
    ]
)
_QUERIES_IN_VAIN = Weighted(
    [(5, "kubernets"), (4, "grapql tutorial"), (3, "how to centre a div in cobol"), (2, "htmx"), (1, "zig comptime")]
)

ENDPOINTS = Weighted(
    [
        (30, ("GET", "/api/posts/:slug", 35.0)),
        (14, ("GET", "/api/posts", 60.0)),
        (8, ("GET", "/api/search", 140.0)),
        (6, ("GET", "/api/posts/:id/comments", 28.0)),
        (4, ("POST", "/api/posts/:id/comments", 75.0)),
        (4, ("POST", "/api/posts/:id/like", 22.0)),
        (3, ("GET", "/api/users/:id", 18.0)),
        (3, ("POST", "/api/auth/login", 210.0)),
        (2, ("GET", "/api/feed.xml", 320.0)),
        (1, ("POST", "/api/media", 850.0)),
        (1, ("PATCH", "/api/posts/:id", 90.0)),
        (0.3, ("GET", "/api/admin/export", 4200.0)),
    ]
)
"""Method, path and usual duration in milliseconds of the blog's requests."""


FAILURES = Weighted(
    [
        (
            float(entry["weight"]),
            Failure(
                service=entry["service"],
                name=entry["name"],
                message=entry["message"],
                frames=tuple(entry["frames"]),
                endpoint=entry.get("endpoint", ""),
                level=entry.get("level", "error"),
            ),
        )
        for entry in yaml.safe_load((_DATA / "failures.yaml").read_text(encoding="utf-8"))
    ]
)
"""The errors that return, a few dozen of them."""


class Blog:
    """The blog: the same posts and people in every run.

    Attributes:
        people: All who have an account from the beginning.
        posts: All that are published from the beginning, which are all that is read.
    """

    def __init__(self) -> None:
        random = Random("the blog")  # noqa: S311 - nothing secret is made of it
        names = [f"{first} {last}" for first in _FIRST_NAMES for last in _LAST_NAMES]
        people = [_person(name, random) for name in random.sample(names, _PEOPLE)]
        self.people = people
        self._authors = people[:_AUTHORS]
        titles = [headline.format(subject) for headline in _HEADLINES for subject in _SUBJECTS]
        self.posts = [
            Post(_uuid(random), slug_of(title), title, random.choice(self._authors))
            for title in random.sample(titles, _POSTS)
        ]
        self._read_posts = Weighted([(1 / (rank + 3) ** 0.9, post) for rank, post in enumerate(self.posts)])
        agents: list[tuple[float, str]] = json.loads((_DATA / "user-agents.json").read_text(encoding="utf-8"))
        self._agents = Weighted(agents)
        self._bots: list[str] = json.loads((_DATA / "bots.json").read_text(encoding="utf-8"))
        self._networks = Weighted([(weight, networks.split()) for weight, _, networks in _NETWORKS])

    def post(self, random: Random) -> Post:
        """Choose a post; the first of them is read twenty times as often as the hundredth."""
        return self._read_posts.choose(random)

    def person(self, random: Random) -> Person:
        """Choose a person with an account."""
        return random.choice(self.people)

    def author(self, random: Random) -> Person:
        """Choose an author."""
        return random.choice(self._authors)

    def visitor(self, random: Random) -> Visitor:
        """Choose a reader, who is signed in one time in four."""
        person = self.person(random) if random.random() < 0.25 else None
        return Visitor(self._agents.choose(random), self.ip_address(random), person)

    def bot(self, random: Random) -> Visitor:
        """Choose a program that reads."""
        return Visitor(random.choice(self._bots), self.ip_address(random), None)

    def ip_address(self, random: Random) -> str:
        """Choose the address of a household."""
        network = random.choice(self._networks.choose(random))
        return f"{network}.{random.randrange(256)}.{random.randrange(1, 255)}"

    def title(self, random: Random) -> str:
        """Invent the title of a post that is yet to be written."""
        return f"{random.choice(_HEADLINES).format(random.choice(_SUBJECTS))}, Revisited"


def remark(random: Random) -> str:
    """Choose the text of a comment."""
    return random.choice(_REMARKS)


def arrival(random: Random) -> Arrival:
    """Choose how a visitor finds a post: a third come directly, the others from elsewhere."""
    chance = random.random()
    if chance < 0.32:
        return Arrival(None, "")
    if chance < 0.44:
        return Arrival(None, "?" + _CAMPAIGNS.choose(random))
    return Arrival(_REFERRERS.choose(random), "")


def query(random: Random) -> tuple[str, int]:
    """Choose what a visitor searches for, spelt as people do, and how many results there are."""
    if random.random() < 0.12:
        return _QUERIES_IN_VAIN.choose(random), 0
    text = _QUERIES.choose(random)
    spelt = random.choice((text, text, text, text.title(), text.upper(), f"  {text}", text.replace(" ", "  ")))
    return spelt, 3 + len(text) % 17


def slug_of(title: str) -> str:
    """Return a title as it stands in a URL."""
    words = "".join(letter if letter.isalnum() else " " for letter in title.lower()).split()
    return "-".join(words)


def _person(name: str, random: Random) -> Person:
    # A generator of their own: with other devices, all else about the blog stays what it is.
    their_own = Random(name)  # noqa: S311 - nothing secret is made of it
    return Person(
        id=_uuid(random),
        name=name,
        email=f"{slug_of(name).replace('-', '.')}@mail.example",
        devices=tuple(_device(platform, their_own) for platform in _DEVICES.choose(their_own)),
        preferences=_PREFERENCES.choose(their_own),
    )


def _device(platform: Platform, random: Random) -> Device:
    """Invent a device, with a token as the platform's have it."""
    if platform != "web":
        return Device(token=random.randbytes(32).hex(), platform=platform)
    endpoint = f"https://push.example/{_base64(random.randbytes(24))}"
    # An uncompressed point of the curve P-256 begins with 4; nothing is ever encrypted with this one.
    keys = {"p256dh": _base64(b"\x04" + random.randbytes(64)), "auth": _base64(random.randbytes(16))}
    return Device(token=json.dumps({"endpoint": endpoint, "keys": keys}), platform=platform)


def _base64(content: bytes) -> str:
    return urlsafe_b64encode(content).decode().rstrip("=")


def _uuid(random: Random) -> str:
    return str(UUID(int=random.getrandbits(128), version=4))
