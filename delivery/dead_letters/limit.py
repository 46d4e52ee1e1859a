"""The limit on dead letters: when most of what arrives is refused, stop instead of setting it all aside."""

from collections import deque
from collections.abc import Iterable


class DeadLetterLimitExceededError(Exception):
    """Most of what arrives is refused: the fault is ours or a release's, and the records are better left alone."""


class DeadLetterLimit:
    """Watches the share of refused records among a topic's latest, one record after the other.

    How the records are cut into batches makes no difference.

    Args:
        share: The highest share that is accepted; 1 accepts all.
        sample: How many of the latest records count. Nothing is concluded from fewer.
    """

    def __init__(self, share: float, sample: int) -> None:
        self._share = share
        self._sample = sample
        self._records = 0
        self._refused: deque[int] = deque()  # the numbers of the refused among the latest, counted from 0

    def check(self, records: int, refused: Iterable[int]) -> None:
        """Count a batch before its dead letters are sent.

        Args:
            records: How many records the batch has.
            refused: The places of the refused ones among them, from 0 up, in order.

        Raises:
            DeadLetterLimitExceededError: More than the share of the latest records was refused.
        """
        start, self._records = self._records, self._records + records
        numbers = {start + place for place in refused}
        # A refused record alone makes the share larger; and there is a first record with which there are enough.
        enough = self._sample - 1
        moments = numbers | {enough} if start <= enough < self._records else numbers
        for number in sorted(moments):
            if number in numbers:
                self._refused.append(number)
            while self._refused and self._refused[0] <= number - self._sample:
                self._refused.popleft()
            if number >= enough and len(self._refused) > self._share * self._sample:
                raise DeadLetterLimitExceededError(
                    f"{len(self._refused)} of the latest {self._sample} records were refused, more than the limit of "
                    f"{self._share:.0%}. Nothing of this batch was committed. The dead-letter topic has the reasons; "
                    "where the records really are invalid, raise INKSTREAM_DEAD_LETTER_LIMIT for one run."
                )
