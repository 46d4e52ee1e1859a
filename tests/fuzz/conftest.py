"""The profiles of fuzzing, so that they are known before one is asked for on the command line."""

from tests.fuzz import profiles

__all__ = ["profiles"]
