"""What happened in a run, as plain data: the harness writes it, and the report reads it.

Times are seconds since the run began, unless they say otherwise.
"""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Injection:
    """One fault, from when it began to when all was well again.

    Attributes:
        fault: Its name, as `FAULTS=` has it.
        detail: What exactly was done, in a few words.
        began: When it began.
        healed: When the cause was gone: the server answers again, the worker was killed, the proxy lets through.
    """

    fault: str
    detail: str
    began: float
    healed: float


@dataclass(frozen=True, slots=True)
class Recovery:
    """How long it took after a fault until work went on.

    Attributes:
        fault: The fault's name.
        first: Seconds from its end to the first event stored.
        last: Seconds from its end until events of each partition were stored.
    """

    fault: str
    first: float
    last: float


@dataclass(frozen=True, slots=True)
class Cycle:
    """One round of faults.

    Attributes:
        number: From 1.
        injections: What was done.
        kills: How many workers were killed meanwhile.
        recoveries: How long it took until work went on.
        sent: How many events Kafka has by the end of it.
        lag: How many of them are still to be stored.
    """

    number: int
    injections: tuple[Injection, ...]
    kills: int
    recoveries: tuple[Recovery, ...]
    sent: int
    lag: int


@dataclass(frozen=True, slots=True)
class Moment:
    """What was measured at one moment.

    Attributes:
        at: When.
        sent: How many events Kafka has acknowledged.
        committed: How many of them the consumer groups that store have committed; `None` where Kafka did not say.
        memory: The resident memory of each worker in bytes, by its post.
    """

    at: float
    sent: int
    committed: int | None
    memory: dict[str, int]


@dataclass(frozen=True, slots=True)
class Check:
    """One promise, and whether it held.

    Attributes:
        promise: What must be, in a few words: `pageViews: each once, as computed without faults`.
        expected: How many there should be.
        found: How many there are as they should be.
        problems: What is wrong, each in a sentence with the id that it is about; empty where the promise held.
    """

    promise: str
    expected: int
    found: int
    problems: list[str] = field(default_factory=list)


@dataclass(slots=True)
class History:
    """A whole run.

    Attributes:
        command: How it was started.
        seed: What decided everything.
        began: When it began, in ISO 8601.
        machine: What it ran on, in a few words.
        settings: The options of the run, by name.
        cycles: All rounds.
        moments: What was measured, every second.
        checks: What was judged in the end.
        kills: How many workers were killed, by how.
        topics: How many events were sent, by topic.
        counts: What else was counted, by heading and name.
        seconds: How long it took, by phase.
    """

    command: str
    seed: int
    began: str
    machine: str
    settings: dict[str, str]
    cycles: list[Cycle] = field(default_factory=list)
    moments: list[Moment] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)
    kills: dict[str, int] = field(default_factory=dict)
    topics: dict[str, int] = field(default_factory=dict)
    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def holds(self) -> bool:
        """Whether every promise held."""
        return bool(self.checks) and not any(check.problems for check in self.checks)
