"""Make scenarios: what people and services do on the sample blog, as facts with the moments they happen at.

Input: a blog, a random generator and a moment. Output: a few facts that belong together, such as a view, its exit and a
like. Each fact says which traces it must leave in MongoDB, so that a run can be checked.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta
from random import Random
from typing import Any, NamedTuple

from dev.blog import (
    ENDPOINTS,
    FAILURES,
    SITE,
    Blog,
    Failure,
    Person,
    Post,
    Visitor,
    Weighted,
    arrival,
    query,
    remark,
    slug_of,
)
from notifications.preferences import DEFAULTS
from notifications.states import plan


class Trace(NamedTuple):
    """What a stored event leaves in MongoDB.

    Attributes:
        collection: Where.
        id: The document; `None` for the one with the event's own id.
        field: The field that an event adds to, in a document that another event makes; `None` where the whole document
            is the event's.
        value: What that field must at least hold: a time that is reached, or an item that is in the list.
    """

    collection: str
    id: str | None = None
    field: str | None = None
    value: Any = None


class Fact(NamedTuple):
    """An event before it is encoded.

    Attributes:
        type: As `topics.yaml` declares it.
        time: When it happens.
        id: The event's id.
        data: The payload, without a time of its own.
        traces: What it leaves where that is not simply one document in each of its type's collections.
        owed: Whether an earlier fact only makes sense with this one, so that it is sent even after the end.
        needs_id: Whether other facts refer to it.
        delay: After how many seconds it is sent.
    """

    type: str
    time: datetime
    id: str
    data: Mapping[str, Any]
    traces: tuple[Trace, ...] | None = None
    owed: bool = False
    needs_id: bool = False
    delay: float = 0.0


class Ids:
    """Makes the ids of one run: UUIDs of version 7, so all of a run begin with the moment that it began.

    Layout: https://www.rfc-editor.org/rfc/rfc9562#name-uuid-version-7
    """

    def __init__(self, run: int, random: Random) -> None:
        self.prefix = f"{run >> 16 & 0xFFFFFFFF:08x}-{run & 0xFFFF:04x}-7"
        self._random = random

    def new(self) -> str:
        """Return the next id."""
        bits = self._random.getrandbits(74)
        return f"{self.prefix}{bits >> 62:03x}-{0x8000 | bits >> 48 & 0x3FFF:04x}-{bits & 0xFFFFFFFFFFFF:012x}"


class Scenarios:
    """Tells scenarios. Two with the same blog, seed and run tell the same ones.

    Args:
        blog: Where they happen.
        random: Decides what happens.
        ids: Where ids come from.
    """

    def __init__(self, blog: Blog, random: Random, ids: Ids) -> None:
        self._blog = blog
        self._random = random
        self._ids = ids
        tellers: list[tuple[float, Callable[[datetime], Iterator[Fact]]]] = [
            (34, self._visit),
            (1.8, self._crawl),
            (14, self._search),
            (2, self._write),
            (4, self._join),
            (36, self._serve),
            (5, self._fail),
            (6, self._track),
            (4, self._administer),
            (1.5, self._summarise),
        ]
        self._tellers = Weighted(tellers)

    def next(self, moment: datetime) -> list[Fact]:
        """Tell a scenario that begins at a moment; the first fact happens then, others perhaps later."""
        return list(self._tellers.choose(self._random)(moment))

    def _visit(self, moment: datetime) -> Iterator[Fact]:
        """A reader opens a post, stays, perhaps likes or says something, and reads on."""
        visitor, session = self._blog.visitor(self._random), self._session()
        coming = arrival(self._random)
        post = self._blog.post(self._random)
        yield from self._read(moment, visitor, session, post, coming.referrer, coming.query)
        yield from self._respond(moment, visitor, session, post)
        stay = 0.0
        while self._random.random() < 0.3:
            stay += self._stay()
            before, post = post, self._blog.post(self._random)
            yield from self._read(_after(moment, stay), visitor, session, post, f"{SITE}/posts/{before.slug}", "")

    def _read(
        self, moment: datetime, visitor: Visitor, session: str, post: Post, referrer: str | None, addition: str
    ) -> Iterator[Fact]:
        view_id, stay = self._ids.new(), self._stay()
        data = _known(
            postId=post.id,
            postSlug=post.slug,
            sessionId=session,
            userId=visitor.person and visitor.person.id,
            ipAddress=visitor.ip_address,
            userAgent=visitor.user_agent,
            url=f"{SITE}/posts/{post.slug}{addition}",
            referrer=referrer,
        )
        chance = self._random.random()
        if chance < 0.05:
            # The beacon of the exit overtakes the view, as happens when the view is retried. It happened before, still.
            yield self._exit(_after(moment, stay), view_id, post, stay)
            delay = stay + 0.2 + self._random.random()
            yield Fact("page.viewed", moment, view_id, data, owed=True, needs_id=True, delay=delay)
            return
        yield Fact("page.viewed", moment, view_id, data, needs_id=True)
        if chance < 0.85:
            yield self._exit(_after(moment, stay), view_id, post, stay)
        if chance < 0.12:
            # Back to the tab, and away again.
            longer = stay * 1.5 + 1
            yield self._exit(_after(moment, longer), view_id, post, longer)

    def _exit(self, moment: datetime, view_id: str, post: Post, stay: float) -> Fact:
        data = {
            "postId": post.id,
            "viewId": view_id,
            "timeSpent": round(stay, 1),
            "scrollDepth": round(min(100.0, 100 * (1 - math.exp(-stay / 12)) + self._random.uniform(0, 10)), 1),
            "interacted": self._random.random() < 0.35,
            "exitedAt": moment.isoformat(timespec="milliseconds"),
        }
        reached = moment.replace(microsecond=moment.microsecond // 1000 * 1000)
        trace = Trace("pageViews", view_id, "exitedAt", reached)
        return Fact("page.exited", moment, self._ids.new(), data, traces=(trace,))

    def _respond(self, moment: datetime, visitor: Visitor, session: str, post: Post) -> Iterator[Fact]:
        chance = self._random.random()
        about = {"postId": post.id, "authorId": post.author.id, "title": post.title, "sessionId": session}
        soon = _after(moment, self._stay() / 2)
        if visitor.person is None:
            if chance < 0.02:
                channel = self._random.choice(("mastodon", "linkedin", "copy-link"))
                # It has no user, so it is part of no one's history.
                own = (Trace("analyticsEvents"),)
                yield self._fact("post.shared", soon, {**about, "channel": channel}, traces=own)
            return
        reader = visitor.person
        if chance < 0.25:
            like = {**about, "slug": post.slug, "userId": reader.id, "userName": reader.name}
            yield self._fact("post.liked", soon, like)
        elif chance < 0.33:
            yield self._fact("post.bookmarked", soon, {**about, "userId": reader.id})
        elif chance < 0.36:
            yield self._fact("post.unliked", soon, {**about, "userId": reader.id})
        elif chance < 0.40:
            yield self._fact("post.shared", soon, {**about, "userId": reader.id, "channel": "mastodon"})
        elif chance < 0.56:
            yield from self._comment(soon, visitor, reader, session, post)

    def _comment(self, moment: datetime, visitor: Visitor, reader: Person, session: str, post: Post) -> Iterator[Fact]:
        comment = self._ids.new()
        about = {"commentId": comment, "postId": post.id, "postTitle": post.title, "authorId": reader.id}
        answered = self._random.random() < 0.4
        yield self._fact(
            "comment.created",
            moment,
            {
                **about,
                "postSlug": post.slug,
                "postAuthorId": post.author.id,
                "authorName": reader.name,
                "excerpt": remark(self._random),
                "sessionId": session,
                "page": f"/posts/{post.slug}",
                "userAgent": visitor.user_agent,
                **_known(
                    parentId=self._ids.new() if answered else None,
                    parentAuthorId=self._blog.person(self._random).id if answered else None,
                ),
            },
        )
        if self._random.random() < 0.4:
            other = self._blog.person(self._random)
            like = {**about, "postSlug": post.slug, "userId": other.id, "userName": other.name}
            yield self._fact("comment.liked", _after(moment, self._stay()), like)
        if self._random.random() < 0.1:
            yield self._fact("comment.updated", _after(moment, self._stay()), about)

    def _crawl(self, moment: datetime) -> Iterator[Fact]:
        """A bot fetches a few posts, and stays on none."""
        bot, session = self._blog.bot(self._random), self._session()
        for number in range(self._random.randint(1, 4)):
            post = self._blog.post(self._random)
            data = {
                "postId": post.id,
                "postSlug": post.slug,
                "sessionId": session,
                "ipAddress": bot.ip_address,
                "userAgent": bot.user_agent,
                "url": f"{SITE}/posts/{post.slug}",
            }
            yield self._fact("page.viewed", _after(moment, number * 0.8), data)

    def _search(self, moment: datetime) -> Iterator[Fact]:
        """A reader searches, perhaps picks a result or two, and reads it."""
        visitor, session = self._blog.visitor(self._random), self._session()
        text, results = query(self._random)
        search_id = self._ids.new()
        user = _known(userId=visitor.person and visitor.person.id)
        data = {
            "query": text,
            "sessionId": session,
            "resultsCount": results,
            "executionTime": round(self._random.lognormvariate(3.6, 0.6), 1),
            **user,
        }
        if self._random.random() < 0.15:
            data["filters"] = {"tags": [slug_of(text)]}
        click_first = results > 0 and self._random.random() < 0.05
        clicked = _after(moment, 1 + self._stay() / 4)
        delay = (clicked - moment).total_seconds() + 0.5 if click_first else 0.0
        yield Fact("search.performed", moment, search_id, data, owed=click_first, needs_id=True, delay=delay)
        if results == 0 or not (click_first or self._random.random() < 0.55):
            return
        post, position = self._blog.post(self._random), min(results, 1 + int(self._random.expovariate(0.5)))
        click = {"searchId": search_id, "sessionId": session, "postId": post.id, "position": position, **user}
        left = Trace("searchQueries", search_id, "clickedResults", {"postId": post.id, "position": position})
        yield self._fact("search.result_clicked", clicked, click, traces=(Trace("analyticsEvents"), left))
        yield from self._read(clicked, visitor, session, post, f"{SITE}/search?q={slug_of(text)}", "")

    def _write(self, moment: datetime) -> Iterator[Fact]:
        """An author writes a post, adds a picture, and publishes it; followers are told."""
        author, post_id, title = self._blog.author(self._random), self._ids.new(), self._blog.title(self._random)
        slug = f"{slug_of(title)}-{post_id}"  # no two posts of any runs may share it
        post = {"postId": post_id, "slug": slug, "authorId": author.id, "title": title}
        yield self._fact("post.created", moment, {**post, "sessionId": self._session()})
        picture = {
            "mediaId": self._ids.new(),
            "userId": author.id,
            "filename": "cover.webp",
            "mimeType": "image/webp",
            "size": self._random.randint(20_000, 900_000),
            "postId": post_id,
        }
        yield self._fact("media.uploaded", _after(moment, 0.5), picture)
        changes = {"before": {"status": "draft"}, "after": {"status": "ready"}}
        yield self._fact("post.updated", _after(moment, 1), {**post, "changes": changes})
        if self._random.random() < 0.8:
            followers = [self._blog.person(self._random).id for _ in range(3)]
            told = {"authorName": author.name, "excerpt": f"{title}, in ten minutes.", "followerIds": followers}
            yield self._fact("post.published", _after(moment, 2), {**post, **told})

    def _join(self, moment: datetime) -> Iterator[Fact]:
        """Someone opens an account or comes back to it, and follows an author."""
        person, visitor, session = self._blog.person(self._random), self._blog.visitor(self._random), self._session()
        came_by = {"ipAddress": visitor.ip_address, "userAgent": visitor.user_agent}
        provider = self._random.choice(("password", "password", "google", "github"))
        if self._random.random() < 0.4:
            # A stranger to the platform's tables: whoever asks that they be told something says where.
            person = person._replace(id=self._ids.new(), devices=(), preferences=DEFAULTS)
            registered = {"userId": person.id, "name": person.name, "provider": provider, "userEmail": person.email}
            yield self._fact("user.registered", moment, {**registered, **came_by})
            yield self._request(
                moment,
                person,
                type="welcome",
                title="Welcome to the blog",
                message=f"Good to have you here, {person.name}.\nSay who you are, and follow whom you like to read.",
                actionUrl="/settings/profile",
                actionText="Write my profile",
                channels=["inApp", "email"],
                email=person.email,
            )
        else:
            account = {"userId": person.id, "name": person.name}
            came = {**account, "provider": provider, "sessionId": session, **came_by}
            yield self._fact("user.logged_in", moment, came)
            if self._random.random() < 0.3:
                bio = {"before": {"bio": ""}, "after": {"bio": "Writes about types."}}
                yield self._fact("user.updated", _after(moment, 1), {**account, "changes": bio})
            yield from self._secure(_after(moment, 1), person, account, came_by)
            if self._random.random() < 0.5:
                yield self._fact("user.logged_out", _after(moment, self._stay()), {**account, "sessionId": session})
        author = self._blog.author(self._random)
        followed = {"userId": author.id, "name": author.name, "followerId": person.id, "followerName": person.name}
        yield self._fact("user.followed", _after(moment, 2), followed)

    def _secure(
        self, moment: datetime, person: Person, account: Mapping[str, Any], came_by: Mapping[str, Any]
    ) -> Iterator[Fact]:
        """Someone who came back changes the password, or signs in from an unknown place."""
        chance = self._random.random()
        if chance < 0.15:
            yield self._fact("user.password_changed", moment, {**account, **came_by})
            yield self._request(
                moment,
                person,
                type="password_changed",
                title="Your password was changed",
                message="If it was you, there is nothing to do.\nIf it was not, set a new one now.",
                actionUrl="/settings/security",
                actionText="Look at my account",
                channels=["inApp", "email"],
                priority="high",
                transactional=True,
            )
        elif chance < 0.25:
            yield self._request(
                moment,
                person,
                type="unknown_sign_in",
                title="Somebody signed in to your account",
                message=f"It was from {came_by['ipAddress']}, where you have not signed in before. Was it you?",
                actionUrl="/settings/security",
                actionText="It was not me",
                channels=["inApp", "email", "push"],
                priority="urgent",
                transactional=True,
            )

    def _summarise(self, moment: datetime) -> Iterator[Fact]:
        """A job sends the posts of the week to a person, and the mail provider reports what became of it."""
        posts = dict.fromkeys(self._blog.post(self._random).title for _ in range(3))
        digest = self._request(
            moment,
            self._blog.person(self._random),
            type="weekly_digest",
            title="Your week on the blog",
            message="\n".join(["What others read this week:", *(f"“{title}”" for title in posts)]),
            actionUrl="/posts",
            actionText="Read on",
            channels=["email"],
            priority="low",
        )
        yield digest
        arrived = _after(moment, 2 + self._random.random())
        yield self._receipt(arrived, digest, "delivered")
        if self._random.random() < 0.5:
            yield self._receipt(_after(arrived, self._stay()), digest, "opened")

    def _receipt(self, moment: datetime, request: Fact, kind: str) -> Fact:
        """Report of the mail that a request led to; a mail that was not sent has no report."""
        key = plan("email", moment).key(request.id)
        data = {
            "channel": "email",
            "provider": "smtp",
            "providerId": f"{key}@blog.example",
            "key": key,
            "kind": kind,
            "timestamp": moment.isoformat(timespec="milliseconds"),
        }
        return self._fact("delivery.reported", moment, data, traces=())

    def _serve(self, moment: datetime) -> Iterator[Fact]:
        """A service answers a request, samples how long it took, and perhaps logs it."""
        method, endpoint, usual = ENDPOINTS.choose(self._random)
        request = self._ids.new()
        duration = round(usual * self._random.lognormvariate(0, 0.5), 2)
        database = round(duration * self._random.uniform(0.3, 0.7), 2)
        sample = {
            "method": method,
            "endpoint": endpoint,
            "statusCode": self._random.choices((200, 201, 304, 404), (80, 5, 10, 5))[0],
            "duration": duration,
            "timings": {"database": database, "processing": round(duration - database, 2)},
            "memoryUsage": round(self._random.uniform(150, 420), 1),
            "cpuUsage": round(self._random.uniform(2, 95), 1),
            "service": "blogs-api",
            "requestId": request,
        }
        yield self._fact("performance.sampled", moment, sample)
        if self._random.random() < 0.45:
            level = self._random.choices(("debug", "info", "warn"), (25, 65, 10))[0]
            messages = {
                "debug": f"cache miss for {endpoint}",
                "info": f"{method} {endpoint} {sample['statusCode']} in {duration} ms",
                "warn": f"slow query: {database} ms",
            }
            yield self._line(moment, level, messages[level], "blogs-api", {"requestId": request})

    def _fail(self, moment: datetime) -> Iterator[Fact]:
        """A request or a job breaks."""
        failure = FAILURES.choose(self._random)
        message = failure.message.format(
            id=self._ids.new(), number=self._random.randint(2, 9999), email=self._blog.person(self._random).email
        )
        error = {"name": failure.name, "message": message, "stack": self._stack(failure, message)}
        more: dict[str, Any] = {"error": error}
        if failure.endpoint:
            method, _, endpoint = failure.endpoint.partition(" ")
            request = self._ids.new()
            more |= {"requestId": request, "method": method, "endpoint": endpoint}
            sample = {
                "method": method,
                "endpoint": endpoint,
                "statusCode": 500,
                "duration": round(self._random.lognormvariate(3, 0.8), 2),
                "service": failure.service,
                "requestId": request,
            }
            yield self._fact("performance.sampled", moment, sample)
        yield self._line(moment, failure.level, f"{failure.name}: {message}", failure.service, more)

    def _stack(self, failure: Failure, message: str) -> str:
        """Return a stack trace as Node prints it; line numbers move with every release."""
        release = self._random.randrange(4)
        own = [
            f"    at {function} (/app/src/{file}:{20 + 7 * depth + 3 * release}:{5 + 2 * depth})"
            for depth, frame in enumerate(failure.frames)
            for function, file in [frame.split(" ")]
        ]
        runtime = [
            f"    at Layer.handle (/app/node_modules/express/lib/router/layer.js:{95 + release}:5)",
            "    at process.processTicksAndRejections (node:internal/process/task_queues:105:5)",
        ]
        return "\n".join([f"{failure.name}: {message}", *own, *runtime])

    def _track(self, moment: datetime) -> Iterator[Fact]:
        """A team counts something of its own."""
        visitor, post = self._blog.visitor(self._random), self._blog.post(self._random)
        kind, category, properties = self._random.choice(
            (
                ("newsletter_subscribed", "engagement", {"placement": "footer", "variant": self._random.choice("AB")}),
                ("code_copied", "engagement", {"language": "typescript", "lines": self._random.randint(1, 60)}),
                ("video_played", "engagement", {"seconds": self._random.randint(1, 600), "muted": True}),
                ("paywall_shown", "revenue", {"plan": "supporter", "price": 4.5, "tags": ["spring", "b2c"]}),
                ("theme_changed", "preferences", {"theme": "dark", "previous": None}),
            )
        )
        data = _known(
            eventType=kind,
            category=category,
            entityId=post.id,
            entityType="post",
            userId=visitor.person and visitor.person.id,
            sessionId=self._session(),
            properties=properties,
            context={"page": f"/posts/{post.slug}", "userAgent": visitor.user_agent},
        )
        yield self._fact("analytics.tracked", moment, data)

    def _administer(self, moment: datetime) -> Iterator[Fact]:
        """A service records who did what, also an attempt that failed."""
        admin, person = self._blog.author(self._random), self._blog.person(self._random)
        failed = self._random.random() < 0.2
        action = self._random.choice(("user.suspended", "settings.changed", "export.requested", "api_key.created"))
        data = _known(
            userId=admin.id,
            userEmail=admin.email,
            userRole="admin",
            action=action,
            resource=action.partition(".")[0],
            resourceId=person.id,
            changes={"before": {"status": "active"}, "after": {"status": "changed"}},
            ipAddress=self._blog.ip_address(self._random),
            userAgent=self._blog.visitor(self._random).user_agent,
            method="POST",
            endpoint=f"/api/admin/{action.replace('.', '/')}",
            status="failure" if failed else "success",
            errorMessage="A second administrator has to agree" if failed else None,
        )
        yield self._fact("audit.recorded", moment, data)

    def _line(self, moment: datetime, level: str, message: str, service: str, more: Mapping[str, Any]) -> Fact:
        data = {"level": level, "message": message, "service": service, "environment": "production", **more}
        # An error's group has an id of its own; its count is held to account as a whole.
        return self._fact("log.written", moment, data, traces=(Trace("systemLogs"),))

    def _request(self, moment: datetime, to: Person, **request: object) -> Fact:
        """Request a notification that follows from no event."""
        return self._fact("notification.requested", moment, {"userId": to.id, **request})

    def _fact(
        self, name: str, moment: datetime, data: Mapping[str, Any], traces: tuple[Trace, ...] | None = None
    ) -> Fact:
        return Fact(name, moment, self._ids.new(), data, traces)

    def _session(self) -> str:
        return f"session-{self._ids.new()}"

    def _stay(self) -> float:
        """How many seconds a visitor stays: half leave within seven."""
        return min(90.0, self._random.lognormvariate(1.9, 0.8))


def _after(moment: datetime, seconds: float) -> datetime:
    return moment + timedelta(seconds=seconds)


def _known(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}
