"""The judge of notifications finds each problem: a run without findings proves nothing if the judge finds none."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from notifications.notice import digest
from tests.chaos.oracle_notifications import Evidence, Outage, Verdict, compare
from tests.chaos.providers import Take
from tests.chaos.requests import Request, Requests
from tests.chaos.workers import Death

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
KEY = digest("n-1", "email", None)
WORKER = 4711
TAKE = Take(KEY, "sendgrid", "m-1", NOW.timestamp(), WORKER, answered=True)


@dataclass
class Run:
    """A run with one notification and no problem."""

    takes: dict[str, list[Take]] = field(default_factory=lambda: {KEY: [TAKE]})
    deaths: dict[int, Death] = field(default_factory=dict)
    outages: list[Outage] = field(default_factory=list)
    likes: dict[str, set[str]] = field(default_factory=dict)
    notification: dict[str, Any] = field(
        default_factory=lambda: {
            "_id": "n-1",
            "userId": "ada",
            "title": "Hello",
            "channels": {
                "inApp": {"enabled": True, "read": False},
                "email": {"enabled": True, "sent": True, "sentAt": NOW, "emailId": KEY},
                "push": {"enabled": False, "sent": False},
            },
        }
    )
    item: dict[str, Any] = field(
        default_factory=lambda: {
            "_id": "n-1",
            "notificationId": "n-1",
            "userId": "ada",
            "type": "comment_reply",
            "priority": 2,
            "createdAt": NOW,
            "status": "completed",
            "completedAt": NOW,
            "channels": ["inApp", "email"],
            "maxAttempts": 3,
            "errors": [],
            "deliveries": [
                {"channel": "inApp", "state": "delivered", "attempts": 0, "since": NOW},
                {
                    "channel": "email",
                    "state": "sent",
                    "attempts": 1,
                    "provider": "sendgrid",
                    "providerId": "m-1",
                    "since": NOW,
                },
            ],
        }
    )
    log: dict[str, Any] = field(
        default_factory=lambda: {
            "_id": KEY,
            "notificationId": "n-1",
            "userId": "ada",
            "status": "sent",
            "provider": "sendgrid",
            "providerId": "m-1",
            "sentAt": NOW,
        }
    )

    def verdict(self) -> Verdict:
        requests = Requests(1, 1, str)
        requests.requests["n-1"] = Request("n-1", "ada", "Hello", ("inApp", "email"), 3)
        requests.likes.update(self.likes)
        evidence = Evidence(requests, self.takes, self.deaths, self.outages)
        notifications, items = [{each["_id"]: each} for each in (self.notification, self.item)]
        return compare(evidence, notifications, items, {"email": [self.log], "push": []})

    def findings(self) -> list[str]:
        return [problem for check in self.verdict().checks for problem in check.problems]

    def taken_again(self, seconds: float, *, answered: bool = True) -> None:
        first = replace(TAKE, answered=answered)
        self.takes = {KEY: [first, replace(TAKE, at=TAKE.at + seconds, worker=WORKER + 1)]}


def test_a_run_in_order_has_no_findings() -> None:
    assert Run().findings() == []


@pytest.mark.parametrize(
    ("spoil", "found"),
    [
        (lambda run: run.notification.update(_id="n-2"), "there is no notification"),
        (lambda run: run.notification.update(userId="eve"), "is another's"),
        (lambda run: run.item.update(status="pending"), "is pending"),
        (lambda run: run.item.update(lease={"token": "t"}), "it is leased by"),
        (lambda run: run.item.update(recipient={}), "still has its recipient"),
        (lambda run: run.item["deliveries"].pop(), "nothing was decided on email"),
        (lambda run: run.item["deliveries"][1].update(attempts=4), "had 4 attempts of 3"),
        (lambda run: run.item["deliveries"][1].update(providerId="m-2"), "which never reported that"),
        (lambda run: run.takes.clear(), "no provider accepted it"),
        (lambda run: run.takes.update({"0" * 32: [TAKE]}), "belongs to no item"),
        (lambda run: run.log.update(status="queued"), "its log says queued"),
        (lambda run: run.log.update(providerId="m-2"), "its log says ('sendgrid', 'm-2')"),
        (lambda run: run.log.update(_id="1" * 32), "is missing, of notification n-1"),
        (lambda run: run.notification["channels"]["email"].update(sent=False), "does not say so"),
        (lambda run: run.taken_again(5), "and again 5.000 s later"),
    ],
)
def test_each_problem_is_found(spoil: Callable[[Run], object], found: str) -> None:
    run = Run()
    spoil(run)
    assert any(found in finding for finding in run.findings()), run.findings()


def test_a_message_may_be_accepted_twice_if_the_response_was_lost() -> None:
    run = Run()
    run.taken_again(5, answered=False)
    assert run.findings() == []
    assert sum(run.verdict().counts["accepted again"].values()) == 1


def test_a_message_may_be_accepted_twice_if_the_queue_says_that_no_response_came() -> None:
    run = Run()
    run.taken_again(5)
    run.item["errors"] = [{"message": "sendgrid: ReadTimeout: …", "timestamp": NOW + timedelta(seconds=4)}]
    assert run.findings() == []


@pytest.mark.parametrize(("seconds", "is_explained"), [(-1.0, True), (0.5, True), (3.0, False)])
def test_a_message_may_be_accepted_twice_if_its_worker_died_before_it_updated_the_queue(
    seconds: float, is_explained: bool
) -> None:
    run = Run()
    run.taken_again(15)
    run.deaths = {WORKER: Death(TAKE.at + seconds, "at any moment")}
    assert (run.findings() == []) == is_explained


def test_without_mongodb_a_worker_has_longer_to_die() -> None:
    run = Run()
    run.taken_again(15)
    run.deaths = {WORKER: Death(TAKE.at + 3, "at any moment")}
    run.outages = [Outage(TAKE.at - 0.1, TAKE.at + 1.5)]
    assert run.findings() == []


def test_a_message_accepted_without_any_fault_has_not_failed() -> None:
    run = Run()
    error = {"code": "500", "message": "…"}
    run.item.update(status="failed", errors=[{"message": "sendgrid: 500: …", "timestamp": NOW}])
    del run.item["completedAt"]
    run.item["deliveries"][1].update(state="failed", error=error)
    run.log.update(status="failed", error=error)
    assert any("was accepted without any fault" in finding for finding in run.findings())


def test_likes_that_nobody_is_notified_of_are_found() -> None:
    run = Run(likes={"post-1": {"grace"}})
    assert run.findings() == ["post-1: 1 liked it, and its author is notified of 0"]
