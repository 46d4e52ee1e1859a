"""How long fuzzing takes: `quick` in every run of the tests, always with the same examples; `long` by `make fuzz`.

Nothing comes in; out goes the decorator for a test. Each test says how many examples it takes in the quick profile,
and in the long one has thirty times as many, other ones each time.
"""

from collections.abc import Callable
from typing import Any, Final, TypeVar

from hypothesis import HealthCheck, settings

QUICK: Final = "quick"
LONG: Final = "long"

_TIMES_AS_MANY = 30
# Building an odd event takes long, and much of what is built is thrown away: neither says anything about the code.
_COMMON: dict[str, Any] = {"deadline": None, "suppress_health_check": list(HealthCheck)}

TestT = TypeVar("TestT", bound=Callable[..., Any])

settings.register_profile(QUICK, derandomize=True, database=None, **_COMMON)
settings.register_profile(LONG, print_blob=True, **_COMMON)


def fuzzed(examples: int) -> Callable[[TestT], TestT]:
    """Run a test with so many examples in the quick profile, which holds where no other one was asked for."""
    is_long = settings.get_current_profile_name() == LONG
    profile = settings.get_profile(LONG if is_long else QUICK)
    return settings(profile, max_examples=examples * _TIMES_AS_MANY if is_long else examples)
