"""Differences between a server and the declarations, and the risks of applying them to existing data."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Literal, Self


class Risk(StrEnum):
    """What a change can do to what exists already. Each needs a flag of `inkstream bootstrap` of its own."""

    EXPIRY = "expiry"
    """Changes when existing documents or records are deleted."""
    REFUSALS = "refusals"
    """Makes a server refuse writes that it accepts now."""
    REBUILDS = "rebuilds"
    """Drops an index and builds it again; until it is built, queries are slow and nothing expires by it."""
    MOVE = "move"
    """Gives data of an earlier release names with the namespace; what still uses the old names finds nothing there."""
    REPARTITIONING = "repartitioning"
    """Moves keys of a topic to other partitions, so that for a while events of one key may be read out of order."""

    @property
    def flag(self) -> str:
        """The flag that allows it: `--allow-expiry`."""
        return f"--allow-{self.value}"


Risks = frozenset[Risk]
"""None, one or several risks: of a change, or those that an operator has allowed."""

NO_RISKS: Risks = frozenset()


@dataclass(frozen=True, slots=True)
class Change:
    """Something on a server that is not as declared.

    Attributes:
        action: What is done about it: `create` what is missing, `change` what is different, only `report` what nobody
            declared, or `blocked` where only a person can do something; then `detail` says what.
        what: Which thing: `index pageViews.sessionId_1`.
        detail: What is different, or what applying it does; may be empty.
        done: Whether it was done, or only found.
        risks: What has to be allowed before it is done.
    """

    action: Literal["create", "change", "report", "blocked"]
    what: str
    detail: str = ""
    done: bool = False
    risks: Risks = NO_RISKS

    @property
    def flags(self) -> list[str]:
        """The flags that it waits for; none where it was done or has no risk."""
        return [] if self.done else [risk.flag for risk in sorted(self.risks)]

    @property
    def line(self) -> str:
        """The change as a person reads it: `created index pageViews.sessionId_1`."""
        words = {
            "create": ("missing", "created"),
            "change": ("different", "changed"),
            "report": ("unexpected",) * 2,
            "blocked": ("blocked",) * 2,
        }
        waits = f"; needs {' and '.join(self.flags)}" if self.flags else ""
        return f"{words[self.action][self.done]} {self.what}" + (f": {self.detail}" if self.detail else "") + waits

    def as_done(self) -> Self:
        """Return it as done."""
        return replace(self, done=True)


def is_allowed(changes: Iterable[Change], allowed: Collection[Risk]) -> bool:
    """Whether all of the changes may be made, by the risks that an operator has allowed."""
    return all(change.risks <= frozenset(allowed) for change in changes)
