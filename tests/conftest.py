"""What holds for all tests."""

from hypothesis import HealthCheck, settings

# Shared machines are slow at times; how long an example takes says nothing about the code.
settings.register_profile("inkstream", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("inkstream")
