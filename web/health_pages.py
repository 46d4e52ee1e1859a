"""The worker's pages `/metrics`, `/healthz` and `/readyz`.

Input: requests of Prometheus and of whatever supervises the worker. Output: metrics and the state of health. The pages
only read, so they answer as long as the event loop runs.
"""

import time

import faust
from faust.web import Request, Response, View
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from runtime.health import Health

_METRICS_KEPT_SECONDS = 0.1
"""How old a response may be: creating one takes milliseconds, and the number of requests is not limited."""


class _Metrics:
    """The metrics as Prometheus reads them."""

    def __init__(self) -> None:
        self._text = b""
        self._made_at = float("-inf")  # by the monotonic clock

    def text(self) -> bytes:
        """Return them, made a moment ago at most."""
        if time.monotonic() - self._made_at > _METRICS_KEPT_SECONDS:
            self._text, self._made_at = generate_latest(), time.monotonic()
        return self._text


def serve(app: faust.App, health: Health) -> None:
    """Add the pages to the application's web server."""
    latest = _Metrics()

    @app.page("/metrics")
    async def metrics(web: View, request: Request) -> Response:
        return web.bytes(latest.text(), content_type=CONTENT_TYPE_LATEST.partition(";")[0])

    @app.page("/healthz")
    async def healthz(web: View, request: Request) -> Response:
        return web.json({"alive": True})

    @app.page("/readyz")
    async def readyz(web: View, request: Request) -> Response:
        body = {"ready": health.ready, "dependencies": health.dependencies, "agents": health.agents}
        if health.features:
            body["degraded"] = health.features
        return web.json(body, status=200 if health.ready else 503)
