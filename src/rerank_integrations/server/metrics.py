"""Metrics of the service in Prometheus' format."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, PlatformCollector, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_BATCH = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


class Metrics:
    """Counters of one application, in a registry of their own, so that a process may have several applications."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self._requests = Counter(
            "rerank_requests",
            "Requests by route, method and status.",
            ["route", "method", "status"],
            registry=self.registry,
        )
        self._seconds = Histogram(
            "rerank_request_seconds",
            "Seconds from a request's first byte to the end of its answer.",
            ["route"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._batch_requests = Histogram(
            "rerank_batch_requests", "Requests per batch.", ["queue"], buckets=_BATCH, registry=self.registry
        )
        self._batch_texts = Histogram(
            "rerank_batch_texts", "Texts per batch.", ["queue"], buckets=_BATCH, registry=self.registry
        )
        self.in_flight = Gauge(
            "rerank_requests_in_flight", "Requests that are read, waiting or computed.", registry=self.registry
        )

    def observe_request(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count a request that has ended."""
        self._requests.labels(route, method, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def observe_batch(self, queue: str, requests: int, texts: int) -> None:
        """Count a batch that is about to be computed."""
        self._batch_requests.labels(queue).observe(requests)
        self._batch_texts.labels(queue).observe(texts)

    def exposition(self) -> bytes:
        """Return all metrics as text."""
        return generate_latest(self.registry)
