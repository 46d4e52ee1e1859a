"""The worker's pages: `/metrics`, `/healthz` and `/readyz`.

In come requests of Prometheus and of whoever supervises the worker; out go metrics and the state of health. The pages
only read, so they answer as long as the event loop runs.
"""

import faust
from faust.web import Request, Response, View
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from ops.health import Health


def serve(app: faust.App, health: Health) -> None:
    """Add the pages to the application's web server."""

    @app.page("/metrics")
    async def metrics(web: View, request: Request) -> Response:
        return web.bytes(generate_latest(), content_type=CONTENT_TYPE_LATEST.partition(";")[0])

    @app.page("/healthz")
    async def healthz(web: View, request: Request) -> Response:
        return web.json({"alive": True})

    @app.page("/readyz")
    async def readyz(web: View, request: Request) -> Response:
        body = {"ready": health.ready, "dependencies": health.dependencies, "agents": health.agents}
        return web.json(body, status=200 if health.ready else 503)
