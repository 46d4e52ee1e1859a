"""Real servers for the tests of the tools, as the integration tests have them."""

from tests.integration.conftest import pipeline, platform

__all__ = ["pipeline", "platform"]
