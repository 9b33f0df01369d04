"""What the server did, as Prometheus reads it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

CONTENT_TYPE = CONTENT_TYPE_LATEST
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_TEXTS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """Figures of one server.

    Attributes:
        requests: Answers by route and HTTP status.
        seconds: Time from a request's head to the end of its answer, by route.
        texts: Texts that were run, by bundle.
        tokens: Tokens, by bundle and kind (``prompt``, ``generated``).
        together: Texts that ran together, by bundle.
    """

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        registry = self._registry
        self.requests = Counter("edgeq_requests", "Answers.", ("route", "status"), registry=registry)
        self.seconds = Histogram("edgeq_request_seconds", "Seconds.", ("route",), buckets=_SECONDS, registry=registry)
        self.texts = Counter("edgeq_texts", "Texts that were run.", ("model",), registry=registry)
        self.tokens = Counter("edgeq_tokens", "Tokens of texts.", ("model", "kind"), registry=registry)
        self.together = Histogram(
            "edgeq_texts_together", "Texts that ran together.", ("model",), buckets=_TEXTS, registry=registry
        )
        self._waiting = Gauge("edgeq_waiting_texts", "Texts that have not begun.", ("model",), registry=registry)

    def watch_waiting(self, counts: Mapping[str, Callable[[], int]]) -> None:
        """Shows how many texts wait for each bundle."""
        for name, count in counts.items():
            self._waiting.labels(name).set_function(count)

    def page(self) -> bytes:
        """The figures in Prometheus' text format."""
        return generate_latest(self._registry)
