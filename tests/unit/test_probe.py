"""Whether a server answers: shown to readiness at once, and said in the log once each time that it changes."""

from structlog.testing import capture_logs

from agents.watch_servers import Probe
from runtime.health import Health


async def test_a_server_that_is_away_is_logged_once_with_what_its_client_says() -> None:
    problem: Exception | None = OSError("no such name: db.invalid (configured timeouts: 5 s)\nmore")

    async def ping() -> None:
        if problem is not None:
            raise problem

    health = Health()
    probe = Probe({"mongodb": ping}, health)
    with capture_logs() as logs:
        for _ in range(3):
            await probe._ping("mongodb", ping)
        assert health.dependencies["mongodb"]["problem"] == "OSError"
        problem = None
        for _ in range(3):
            await probe._ping("mongodb", ping)
        assert health.ready
    assert logs == [
        {
            "event": "server does not answer, trying again",
            "log_level": "warning",
            "server": "mongodb",
            "problem": "no such name: db.invalid",
        },
        {"event": "server answers again", "log_level": "info", "server": "mongodb"},
    ]
