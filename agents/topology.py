"""Which agents there are, which topic each of them reads, and which of them this worker runs.

Input: `topics.yaml`, `notifications.yaml` and the settings. Output: a `Topology`, the same for the same input. The
worker builds its agents from it, and `inkstream doctor` looks at their consumer groups by it, without building any.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeVar

from notifications import rules
from notifications.rules import Rules
from runtime.settings import Settings
from schemas import topics
from schemas.declarations import DeclarationError
from schemas.topics import Topic, Topics
from sinks import collections

VIEW_WINDOWS = "view-windows"
POST_VIEW_COUNTS = "post-view-counts"
DELIVERY_RECEIPTS = "delivery-receipts"
DELIVER = "deliver"
"""The agent that reads no topic: it works on the queue of notifications in MongoDB."""

T = TypeVar("T")


class Topology(NamedTuple):
    """The agents, by name: that of its topic, or `notify-` and that of its topic, or `deliver`.

    Attributes:
        topics: All topics.
        rules: Which events notify whom.
        stored: The topics whose events become documents, each by the agent that has the topic's name.
        notified: The topic that each `notify-…` agent makes notifications of.
        running: The agents that this worker runs.
    """

    topics: Topics
    rules: Rules
    stored: Mapping[str, Topic]
    notified: Mapping[str, Topic]
    running: frozenset[str]

    @property
    def reads(self) -> Mapping[str, Topic]:
        """The topic that each agent reads; `deliver` reads none."""
        return {**self.topics.all, **self.notified}


def load(settings: Settings) -> Topology:
    """Return the topology that the files and the settings declare.

    Raises:
        DeclarationError: A file is wrong, or `INKSTREAM_AGENTS` names an agent that does not exist.
    """
    declared = topics.load(
        settings.topics_file, collections.NAMES, partitions=settings.partitions, replication=settings.replication
    )
    events = {name: event for topic in declared.inbound.values() for name, event in topic.events.items()}
    return topology(declared, rules.load(settings.notifications_file, events, window=settings.gather_window), settings)


def topology(declared: Topics, notifying: Rules, settings: Settings) -> Topology:
    """Return the topology of topics and rules that have been read.

    Raises:
        DeclarationError: `INKSTREAM_AGENTS` names an agent that does not exist.
    """
    inbound = declared.inbound.values()
    notified = {f"notify-{topic.name}": topic for topic in inbound if notifying.events & topic.events.keys()}
    agents = [*declared.all, *notified, DELIVER]
    if unknown := set(settings.agents) - set(agents):
        raise DeclarationError(
            f"INKSTREAM_AGENTS: no agent {', '.join(sorted(unknown))}; expected some of {', '.join(agents)}"
        )
    stored = {topic.name: topic for topic in inbound if topic.collections}
    return Topology(declared, notifying, stored, notified, frozenset(settings.agents or agents))


def hooks_of(topic: Topic, declared: Mapping[str, Sequence[T]]) -> list[T]:
    """Return the hooks to run after a write of the topic's documents: those of each of its collections, each once.

    Args:
        topic: The topic.
        declared: The hooks of each collection, by its name.
    """
    return list(dict.fromkeys(hook for name, hooks in declared.items() if name in topic.collections for hook in hooks))
