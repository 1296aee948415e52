"""Every metric of a front end, in the order of a mutation's life. Served at ``/metrics`` for Prometheus."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp import web
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from upwell.clock import Clock
from upwell.doorbell.bell import Bell

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Metrics:
    """The metrics of one front end, in a registry of their own."""

    def __init__(self, bell: Bell, clock: Clock) -> None:
        self.registry = CollectorRegistry()
        self.clock = clock
        self.requests = Counter(
            "upwell_requests", "requests answered", ["method", "route", "status"], registry=self.registry
        )
        self.request_seconds = Histogram(
            "upwell_request_seconds", "time to answer", ["route"], buckets=SECONDS, registry=self.registry
        )
        self.mutations = Counter(
            "upwell_mutations_accepted", "mutations made durable", ["operation"], registry=self.registry
        )
        self.rows = Counter(
            "upwell_rows_accepted", "vectors or ids in those mutations", ["operation"], registry=self.registry
        )
        self.corrupt_reads = Counter(
            "upwell_corrupt_reads", "reads that met a damaged object of the store", registry=self.registry
        )
        gauges: tuple[tuple[str, str, Callable[[], float]], ...] = (
            ("upwell_doorbell_rings", "times that the doorbell was rung", lambda: bell.rings),
            ("upwell_doorbell_jobs", "jobs enqueued for those rings", lambda: bell.enqueued),
            (
                "upwell_doorbell_failures",
                "times that Redis could not be reached to ring",
                lambda: bell.failures,
            ),
            ("upwell_doorbell_waiting", "indexes whose ring has not reached Redis yet", lambda: bell.waiting),
        )
        for name, text, read in gauges:
            Gauge(name, text, registry=self.registry).set_function(read)


METRICS = web.AppKey("metrics", Metrics)
#: Of a request to a route that stands for several: which of them it is. One of a few names, and never a path.
ROUTE = web.RequestKey("route", str)

#: Of a failure of ours that is answered with 200, as a vendor does: the status that says so.
STATUS = web.RequestKey("status", int)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@web.middleware
async def measured(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Count and time every request, by its route and never by its path: names are not labels."""
    metrics = request.app[METRICS]
    began = metrics.clock.monotonic()
    status = 500
    try:
        response = await handler(request)
        status = request.get(STATUS, response.status)
        return response
    except web.HTTPException as error:
        status = error.status
        raise
    finally:
        resource = request.match_info.route.resource
        route = request.get(ROUTE) or (resource.canonical if resource is not None else "none")
        metrics.requests.labels(request.method, route, str(status)).inc()
        metrics.request_seconds.labels(route).observe(metrics.clock.monotonic() - began)


async def metrics_page(request: web.Request) -> web.Response:
    """``GET /metrics``."""
    body = generate_latest(request.app[METRICS].registry)
    return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})
