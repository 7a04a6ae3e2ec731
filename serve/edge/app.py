"""The one app of an edge, whichever way a request comes in."""

import ipaddress
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any, Final

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.responses import JSONResponse
from fastapi_offline import FastAPIOffline
from starlette.routing import BaseRoute

from actors.errors import UnavailableError
from actors.settings.tree import Settings
from actors.store.interface import EdgeStore
from serve.api.calls import ApiCalls
from serve.api.routes import SECURITY_SCHEMES, router
from serve.api.shapes import openapi_schemas
from serve.auth.access import api_key_matches
from serve.edge import prometheus
from serve.edge.health import Health

_FORWARDED: Final = (
    "forwarded", "via", "x-forwarded", "x-real-ip", "x-client-ip", "x-cluster-client-ip",
    "x-original-", "x-envoy-", "client-ip", "true-client-ip", "cf-", "fastly-", "fly-",
)  # fmt: skip
"""How names of headers begin that proxies add to what they pass on."""


def edge_app(
    settings: Settings,
    store: EdgeStore,
    calls: ApiCalls,
    health: Health,
    routes: Sequence[BaseRoute],
) -> FastAPI:
    """Return the app. Building it starts nothing.

    Args:
        settings: The API key is in `auth`; without one the API answers nobody.
        store: Where all parts' numbers are.
        calls: The server API.
        health: Who knows whether messages get through.
        routes: More of them: those of the sockets, and of the page.
    """
    secret = settings.auth.api_key
    key = secret.get_secret_value() if secret is not None else ""

    def allowed(request: Request) -> bool:
        return api_key_matches(request.headers, request.query_params, key)

    # /docs with files of our own: Swagger would load them from a host that nobody here has chosen.
    app = FastAPIOffline(
        title="Raywire",
        description="Push live data to people.",
        redoc_url=None,
        # Behind a proxy with TLS they would lead to http://, with the key that is in the query.
        redirect_slashes=False,
    )
    app.include_router(router(calls, allowed=allowed))
    app.include_router(_operations(settings, store, health, allowed))
    app.router.routes.extend(routes)
    _describe(app)
    return app


def _operations(settings: Settings, store: EdgeStore, health: Health, allowed: Any) -> APIRouter:
    operations = APIRouter(tags=["operations"])
    partitions = range(settings.queue.partitions)

    @operations.head("/health", include_in_schema=False)  # Some load balancers ask so.
    @operations.get("/health", responses={503: {"description": "It would not; `problems` say why"}})
    async def is_healthy() -> Response:
        """Answer 200 if a message would get through."""
        problems = await health.problems()
        if problems:
            return JSONResponse(
                {"status": "unavailable", "problems": problems}, HTTPStatus.SERVICE_UNAVAILABLE
            )
        return JSONResponse({"status": "ok"})

    @operations.get("/metrics", responses={401: {"description": "The API key is missing or wrong"}})
    async def metrics(request: Request) -> Response:
        """Return the numbers of all parts as Prometheus text.

        With the API key; programs on the same machine need none.
        """
        if not (allowed(request) or _is_local(request)):
            return Response(status_code=HTTPStatus.UNAUTHORIZED)
        try:
            stats = await store.read_stats()
            lengths = await store.queue_lengths(partitions)
            dead = await store.dead_letters.count(partitions)
        except UnavailableError as error:
            return Response(f"{error}\n", HTTPStatus.SERVICE_UNAVAILABLE, media_type="text/plain")
        return Response(
            prometheus.render(stats, lengths, dead),
            headers={"Content-Type": prometheus.CONTENT_TYPE},
        )

    return operations


def _is_local(request: Request) -> bool:
    """Return whether the peer is on this machine, and does not speak for another."""
    if request.client is None or any(name.startswith(_FORWARDED) for name in request.headers):
        return False
    try:
        return ipaddress.ip_address(request.client.host).is_loopback
    except ValueError:
        return False


def _describe(app: FastAPI) -> None:
    """Put the requests' shapes and the API key into the OpenAPI document."""
    plain = app.openapi

    def openapi() -> dict[str, Any]:
        document = plain()
        components = document.setdefault("components", {})
        components.setdefault("schemas", {}).update(openapi_schemas())
        components["securitySchemes"] = SECURITY_SCHEMES
        return document

    app.openapi = openapi  # type: ignore[method-assign]  # the documented way to extend it
