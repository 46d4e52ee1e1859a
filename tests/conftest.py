"""What holds for all tests."""

import pytest
from hypothesis import HealthCheck, settings

# Shared machines are slow at times; how long an example takes says nothing about the code.
settings.register_profile("inkstream", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("inkstream")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--full", action="store_true", help="run crash tests in full size, which takes minutes")


@pytest.fixture
def full(request: pytest.FixtureRequest) -> bool:
    """Whether to run in full size."""
    return bool(request.config.getoption("--full"))
