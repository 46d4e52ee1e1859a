"""The health of this worker: each dependency and each agent, and since when something is wrong.

Input: reports from the parts that do the work. Output: the readiness page. A report replaces the previous one, so
nothing needs to be undone after a failure.
"""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TypedDict

from runtime.metrics import AGENT_UP, DEPENDENCY_UP


class State(TypedDict):
    """One line of the readiness page: `since` is ISO 8601; `problem` is absent while all is well."""

    ready: bool
    since: str
    problem: str | None


@dataclass
class Health:
    """The last known state of everything that this worker needs. An unknown dependency is not ready.

    `features` work in part, because Redis refuses their commands or the platform holds a lock; the worker stays ready.
    """

    dependencies: dict[str, State] = field(default_factory=dict)
    agents: dict[str, State] = field(default_factory=dict)
    features: dict[str, State] = field(default_factory=dict)

    def dependency(self, name: str, problem: str | None) -> None:
        """Report that a server works (`problem` is `None`), or what is wrong with it."""
        DEPENDENCY_UP.labels(name).set(problem is None)
        _report(self.dependencies, name, problem)

    def agent(self, name: str, problem: str | None) -> None:
        """Report that an agent reads its partitions (`problem` is `None`), or why it does not."""
        AGENT_UP.labels(name).set(problem is None)
        _report(self.agents, name, problem)

    def degraded(self, feature: str, problem: str | None) -> None:
        """Report that a feature works without one of its servers, or works again; the worker stays ready."""
        if problem is None:
            self.features.pop(feature, None)
        else:
            _report(self.features, feature, problem)

    @property
    def ready(self) -> bool:
        """Whether everything that this worker needs is known to work."""
        return bool(self.dependencies) and all(
            state["ready"] for state in (*self.dependencies.values(), *self.agents.values())
        )


def _report(states: dict[str, State], name: str, problem: str | None) -> None:
    before = states.get(name)
    if before is None or before["problem"] != problem:
        states[name] = State(ready=problem is None, since=datetime.now(UTC).isoformat(), problem=problem)
