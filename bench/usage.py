"""Measure what a process costs: CPU seconds and memory of it and of all its descendants, in any language.

Input: a process id. Output: sums over the family, updated by each `look`. CPU time of a child that ends between two
looks is lost from the last look on.
"""

import psutil


class Usage:
    """The CPU time and the memory of some processes and all that they start.

    Args:
        pids: The processes to begin with.
    """

    def __init__(self, *pids: int) -> None:
        self._roots = [psutil.Process(pid) for pid in pids]
        self._seconds: dict[int, float] = {}
        self._before = 0.0
        self.peak_bytes = 0
        self.look()
        self._before = sum(self._seconds.values())

    @property
    def cpu_seconds(self) -> float:
        """User and system time of the whole family since this was made."""
        return sum(self._seconds.values()) - self._before

    def look(self) -> None:
        """Bring the figures up to date.

        Memory is the sum of the resident sets, so what processes share counts for each of them.
        """
        memory = 0
        for process in self._family():
            try:
                with process.oneshot():
                    times = process.cpu_times()
                    memory += process.memory_info().rss
            except psutil.NoSuchProcess:
                continue
            self._seconds[process.pid] = times.user + times.system
        self.peak_bytes = max(self.peak_bytes, memory)

    def _family(self) -> list[psutil.Process]:
        family = []
        for root in self._roots:
            try:
                family += [root, *root.children(recursive=True)]
            except psutil.NoSuchProcess:
                continue
        return family
