"""Send: brings one notification to its person, on every channel that is due.

In comes an item of the queue that is ours for a while; out go messages to providers, their logs, and the item given
back with what came of it. Each attempt is written down before the provider gets anything and again once it has
answered, so after a crash anywhere the queue knows all but that one answer. docs/notification-states.md has the states.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial
from random import Random
from typing import Any, Literal, NamedTuple, TypeVar

import structlog

from agents.notifications.attempt import TIMEOUT, hand_over
from agents.notifications.leased_item import Hold, LeaseLost
from delivery.retry import until_done
from notifications.composing import Address, Composer, log_of
from notifications.item import Item, UnreadableItemError
from notifications.outcome import Failed, Outcome, Refused, Sent
from notifications.preferences import DEFAULTS
from notifications.retry_policy import growing
from notifications.states import (
    INTERRUPTED_MESSAGE,
    Delivery,
    IllegalTransition,
    Reason,
    begin,
    device_name,
    expired,
    is_due,
    next_due,
    postpone,
    recover,
    settle,
    skip,
)
from providers.registry import Providers, Route
from runtime.health import Health
from runtime.metrics import LEASES_LOST
from schemas.email_address import normalised
from schemas.notifications import Channel, Device
from sinks.mongo.notification_queue import LEASE, Claim
from sinks.postgres.recipients import Person
from sinks.stores import Stores

log = structlog.get_logger(__name__)
T = TypeVar("T")

LONGEST_PAUSE = timedelta(seconds=2)
"""So long a message waits in the worker for its provider's rate; for longer it goes back to the queue."""

_DAY = timedelta(days=1)
_SOON = timedelta(seconds=1)
_LONGEST_MORE = timedelta(hours=1)
_BETTER_BY_ANOTHER = ("policy", "configuration", "throttled")
_LAST_BEGIN = LEASE - TIMEOUT - timedelta(seconds=5)
"""So long after its claim a message may be begun: later, somebody else could have the item before the answer comes."""


class Limits(NamedTuple):
    """How many notifications one person gets in a day on each channel; what is urgent or transactional does not count.

    Attributes:
        of_type: Of one type.
        of_all: Of all types.
    """

    of_type: int
    of_all: int


class Send:
    """Sends what is due of an item.

    Args:
        stores: Where to read and write.
        providers: Who takes messages.
        composer: Composes them.
        limits: How many notifications a person gets.
        health: Where to report that a store is down.
        chance: Spreads attempts.
    """

    def __init__(
        self,
        stores: Stores,
        providers: Providers,
        composer: Composer,
        limits: Limits,
        health: Health,
        chance: Random,
    ) -> None:
        self._stores = stores
        self._now = stores.clock.now
        self._providers = providers
        self._composer = composer
        self._limits = limits
        self._health = health
        self._chance = chance

    async def __call__(self, claim: Claim) -> datetime | None:
        """Send what is due of the item, and give it back; return when more of it is due, `None` where nothing waits."""
        began = time.monotonic()
        try:
            item = Item.from_document(claim.item)
        except UnreadableItemError as error:
            log.error("an item of the queue is unreadable", item=claim.id, problem=str(error))
            problem = f"the item can't be read: {error}"
            await self._in_mongo(partial(self._stores.queue.give_up, claim, problem, self._now()))
            return None
        hold = Hold(claim, item, self._stores, self._health)
        try:
            return await self._bring(hold, began)
        except LeaseLost:
            LEASES_LOST.inc()
            log.warning("an item of the queue has gone to another worker", item=claim.id)
            return None

    async def _bring(self, hold: Hold, began: float) -> datetime | None:
        item = hold.item
        await self._take_up(hold)
        notification = await self._in_mongo(partial(self._stores.notifications.find, item.notification_id))
        if notification is None:
            now = self._now()
            again = _again_without_notification(item, now)
            if again is not None:
                await self._in_mongo(partial(self._stores.queue.put_back, hold.claim, again, now))
                return again
        if notification is None or expired(item.expires_at, self._now()):
            await self._skip_all(hold)
        else:
            person = await self._in_postgres(partial(self._stores.recipients.find, item.user_id))
            now = self._now()
            hold.plan(lambda it: it.plan(_devices(it, person), now))
            errand = _Errand(hold, notification, person, began)
            due = [delivery for delivery in hold.item.deliveries if is_due(delivery, self._now())]
            await _all(self._deliver(errand, delivery) for delivery in due)
        await self._in_mongo(partial(self._stores.notifications.mark_sent, hold.item))
        await hold.give_back()
        return next_due(hold.item.deliveries)

    async def _take_up(self, hold: Hold) -> None:
        """Take up what a worker left that lost its lease: attempts of which nobody knows, and logs it did not write."""
        for delivery in hold.item.deliveries:
            known = delivery
            if delivery.state == "sending":
                with suppress(IllegalTransition):  # a receipt was faster, and knows better
                    known = await hold.move(
                        delivery,
                        lambda it: recover(it, hold.item.policy(it.channel), self._now()),
                        error=INTERRUPTED_MESSAGE,
                    )
            if outcome := _outcome(known):
                await self._note(hold.item, known, outcome)

    async def _skip_all(self, hold: Hold) -> None:
        """Give up whatever waits of a notification whose time is over, or that somebody has deleted."""
        now = self._now()
        reason: Reason = "expired" if expired(hold.item.expires_at, now) else "cancelled"
        hold.plan(lambda it: it.plan((), now))
        for delivery in hold.item.deliveries:
            if delivery.state == "waiting":
                with suppress(IllegalTransition):  # a receipt or a command was faster
                    await self._skip(hold, delivery, reason)

    async def _deliver(self, errand: "_Errand", delivery: Delivery) -> None:
        """Bring one delivery as far as it gets now: one attempt, or one with each provider that refuses us."""
        try:
            while is_due(delivery, self._now()):
                delivery = await self._try(errand, delivery)
        except IllegalTransition:
            return  # a receipt or a command was faster, and nothing is left to do

    async def _try(self, errand: "_Errand", delivery: Delivery) -> Delivery:
        """Skip a delivery, let it wait, or attempt it."""
        address = errand.address(delivery)
        hindrance = await self._hindrance(errand, delivery, address)
        if hindrance is None and address is not None:
            route = await self._route(address, delivery)
            if isinstance(route, Route):
                return await self._attempt(errand, delivery, address, route)
            hindrance = route
        if isinstance(hindrance, datetime):
            until = hindrance
            return await errand.hold.move(delivery, lambda it: postpone(it, until))
        return await self._skip(errand.hold, delivery, hindrance or "no-address")

    async def _skip(self, hold: Hold, delivery: Delivery, reason: Reason) -> Delivery:
        """Give a delivery up; where there were attempts before, its log says so."""
        skipped = await hold.move(delivery, lambda it: skip(it, reason, self._now()))
        if outcome := _outcome(skipped):
            await self._note(hold.item, skipped, outcome)
        return skipped

    async def _hindrance(
        self, errand: "_Errand", delivery: Delivery, address: Address | None
    ) -> Reason | datetime | None:
        """Return why to skip a delivery, or until when it waits; `None` where nothing hinders it."""
        item = errand.hold.item
        wants = errand.person.preferences if errand.person else DEFAULTS
        hindrance = item.hindrance(delivery, wants, self._now())
        if hindrance is not None or address is None:
            return hindrance
        reason = await self._in_postgres(partial(self._stores.suppressions.reason, _kind(address), address.text))
        # Who unsubscribed still gets what they must know, as a new password.
        if reason is not None and not (reason == "unsubscribed" and item.transactional):
            return "suppressed"
        return None if await self._is_admitted(item, delivery.channel) else "throttled"

    async def _is_admitted(self, item: Item, channel: Channel) -> bool:
        """Whether the person has not had too much today; asked again of the same item, the answer is the same."""
        if item.is_urgent or item.transactional:
            return True
        name = f"user:{item.user_id}:{channel}"
        admit = self._stores.rate_limits.admit
        return await admit(f"{name}:{item.type}", self._limits.of_type, _DAY, item.id) and await admit(
            name, self._limits.of_all, _DAY, item.id
        )

    async def _route(self, address: Address, delivery: Delivery) -> Route[Any] | datetime | Reason:
        """Return who is to be given the message, when somebody can be, or that nobody ever takes it."""
        routes: Sequence[Route[Any]] = self._providers.email
        if delivery.category in _BETTER_BY_ANOTHER:
            routes = sorted(routes, key=lambda route: route.name == delivery.provider)
        if address.device is not None:
            route = self._providers.push(address.device.platform, address.text)
            routes = [] if route is None else [route]
        for route in routes:
            if route.breaker.admits_at(self._now()) > self._now():
                continue
            later = await self._rate(route)
            if later is not None:
                return later
            if route.breaker.admit(self._now()):
                return route
        if not routes:
            return "no-provider"
        # The longer it has waited the longer it may, and never all at once: a long outage must not keep the queue busy.
        waited = max((self._now() - delivery.since) / 10, growing(delivery.given_back, _SOON, 2, _LONGEST_MORE))
        more = max(_SOON, waited) * self._chance.random()
        return max(min(route.breaker.admits_at(self._now()) for route in routes), self._now() + _SOON) + more

    async def _rate(self, route: Route[Any]) -> datetime | None:
        """Wait until the provider's rate allows another message; return when to come again where that takes long."""
        while route.rate is not None:
            wait = await self._stores.rate_limits.take(f"provider:{route.name}", route.rate)
            if not wait:
                break
            if wait > LONGEST_PAUSE:
                return self._now() + wait
            await asyncio.sleep(wait.total_seconds())
        return None

    async def _attempt(self, errand: "_Errand", delivery: Delivery, address: Address, route: Route[Any]) -> Delivery:
        """Give the message to a provider once, and write down what came of it."""
        hold, item = errand.hold, errand.hold.item
        errand.require_time()
        begun = await hold.move(delivery, lambda it: begin(it, route.name, self._now()))
        errand.require_time()
        given_back_at = delivery.since if delivery.given_back else None
        outcome = await self._hand_over(errand, begun, address, route, given_back_at)
        if isinstance(outcome, Refused) and outcome.recipient_is_gone:
            await self._in_postgres(partial(self._stores.suppressions.add, _kind(address), address.text, "gone"))
        settled = await hold.move(
            begun,
            lambda it: settle(it, outcome, item.policy(it.channel), self._now(), self._chance),
            error=None if isinstance(outcome, Sent) else f"{route.name}: {outcome.code}: {outcome.message}",
        )
        await self._note(item, settled, outcome)
        return settled

    async def _hand_over(
        self,
        errand: "_Errand",
        delivery: Delivery,
        address: Address,
        route: Route[Any],
        given_back_at: datetime | None,
    ) -> Outcome:
        """Compose the message, open its log, and give it to the provider."""
        item = errand.hold.item
        key = delivery.key(item.notification_id)
        try:
            message = self._composer.message(item, delivery, address, errand.notification)
        except Exception as error:  # as in `hand_over`: it counts as an attempt, so it is not tried for ever
            log.exception("a message was not composed", item=item.id)
            return Failed(type(error).__name__, "the message can't be composed", may_have_arrived=False)
        body = log_of(item, message, route.name, self._now())
        await self._in_mongo(partial(self._stores.delivery_logs.open, delivery.channel, key, body))
        return await hand_over(route, message, self._now, given_back_at)

    async def _note(self, item: Item, delivery: Delivery, outcome: Outcome) -> None:
        """Write what came of an attempt into the message's log."""
        note = partial(
            self._stores.delivery_logs.settle,
            delivery.channel,
            delivery.key(item.notification_id),
            outcome,
            is_final=delivery.state != "waiting",
            now=delivery.since,
        )
        await self._in_mongo(note)

    async def _in_mongo(self, operation: Callable[[], Awaitable[T]]) -> T:
        return await until_done(operation, self._stores.mongo, self._health)

    async def _in_postgres(self, operation: Callable[[], Awaitable[T]]) -> T:
        return await until_done(operation, self._stores.suppressions, self._health)


class _Errand(NamedTuple):
    """One notification in hand: what it says, whose it is, and since when we have it (monotonic seconds)."""

    hold: Hold
    notification: dict[str, Any]
    person: Person | None
    began: float

    def require_time(self) -> None:
        """See that there is time enough to send before the lease runs out.

        Raises:
            LeaseLost: There is not.
        """
        if time.monotonic() - self.began > _LAST_BEGIN.total_seconds():
            raise LeaseLost

    def address(self, delivery: Delivery) -> Address | None:
        """Return where a delivery goes; `None` where there is no such address any more."""
        if delivery.channel == "email":
            asked = self.hold.item.recipient.email if self.hold.item.recipient else None
            email = normalised(asked or (self.person.email if self.person else None) or "")
            return Address(email, None) if email else None
        devices = {device_name(device.token): device for device in _devices(self.hold.item, self.person)}
        device = devices.get(delivery.device or "")
        return Address(device.token, device) if device else None


def _devices(item: Item, person: Person | None) -> Sequence[Device]:
    """Return the person's devices: those that the request names, else those that the platform knows."""
    if item.recipient is not None and item.recipient.devices:
        return item.recipient.devices
    return person.devices if person else ()


def _kind(address: Address) -> Literal["email", "push"]:
    return "email" if address.device is None else "push"


def _again_without_notification(item: Item, now: datetime) -> datetime | None:
    """Return when to look again for a notification that is not there; `None` where it has gone for good.

    The item may come first; the notification follows at once, or once its worker is up again. How old what they tell
    of is says nothing: a notification of what happened yesterday is as likely to follow as any.
    """
    missing = now - (item.missing_since or now)
    if expired(item.expires_at, now) or missing > _DAY:
        return None
    return now + max(_SOON, missing / 8)


def _outcome(delivery: Delivery) -> Outcome | None:
    """Return what came of the attempts of a delivery that has ended, for its log; `None` where there were none."""
    if delivery.provider is None:
        return None
    match delivery.state:
        case "sent" | "delivered":
            return Sent(delivery.provider_id)
        case "failed":
            return Refused(delivery.code or "", delivery.message or "", recipient_is_gone=False)
        case "skipped":
            return Refused(delivery.reason or "", "not tried again", recipient_is_gone=False)
        case _:
            return None


async def _all(deliveries: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Bring all of them to their end; raise what the first raised."""
    results = await asyncio.gather(*deliveries, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
