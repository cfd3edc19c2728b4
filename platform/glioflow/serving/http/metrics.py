"""Counters and times of one gateway in Prometheus' text format, without names of files, studies or persons."""

from collections.abc import Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
_SLICES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """Counters of a gateway; the label `gateway` distinguishes several behind one address."""

    def __init__(self, gateway: str) -> None:
        """Begin at zero."""
        self.gateway, self.registry = gateway, CollectorRegistry()
        options: dict[str, Any] = {"registry": self.registry, "namespace": "glioflow"}
        self.requests = Counter("requests", "Answers by route and status", ["gateway", "route", "status"], **options)
        self.seconds = Histogram("request_seconds", "Whole requests", ["gateway", "route"], buckets=_SECONDS, **options)
        self.stages = Histogram(
            "stage_seconds", "Stages of predictions", ["gateway", "stage"], buckets=_SECONDS, **options
        )
        self.in_flight = Gauge("predictions_in_flight", "Waiting or computed", ["gateway"], **options)
        self.queued = Histogram(
            "queue_studies", "Studies before a new one in the predictor", ["gateway"], buckets=_SLICES, **options
        )
        self.batch_slices = Histogram(
            "batch_slices", "Slices of a forward pass", ["gateway"], buckets=_SLICES, **options
        )
        self.batch_requests = Histogram(
            "batch_requests", "Studies that share a forward pass", ["gateway"], buckets=_SLICES, **options
        )
        self.drift = Histogram(
            "input_drift_deviations",
            "Distance of a study's channel from the training cohort",
            ["gateway", "channel"],
            buckets=(0.5, 1, 2, 3, 4, 6, 10, 20, 50),
            **options,
        )
        self.model = Gauge("model_info", "The version that answers", ["gateway", "name", "version"], **options)
        self.refused = Gauge("versions_refused", "Versions that could not be served", ["gateway"], **options)
        self.out_of_room = Counter("out_of_room", "Requests for which disk or memory was full", ["gateway"], **options)
        self.answers = Counter("answers", "Studies by the version that answered", ["gateway", "version"], **options)

    def answered(self, route: str, status: int, seconds: float) -> None:
        """Count a request."""
        self.requests.labels(self.gateway, route, str(status)).inc()
        self.seconds.labels(self.gateway, route).observe(seconds)

    def predicted(self, answer: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
        """Count a prediction by its answer and the predictor's facts."""
        self.answers.labels(self.gateway, str(answer["model"]["version"])).inc()
        for stage, ms in answer["timing_ms"].items():
            self.stages.labels(self.gateway, stage).observe(ms / 1000)
        if "queued" in facts:
            self.queued.labels(self.gateway).observe(facts["queued"])
        if facts.get("batch"):
            slices, requests = facts["batch"]
            self.batch_slices.labels(self.gateway).observe(slices)
            self.batch_requests.labels(self.gateway).observe(requests)
        for channel, deviations in (facts.get("drift") or {}).items():
            self.drift.labels(self.gateway, channel).observe(deviations)

    def text(self, card: Mapping[str, Any] | None) -> bytes:
        """Return all metrics; `card` names the version that answers."""
        if card is not None:
            self.model.clear()
            self.model.labels(self.gateway, card["model"]["name"], str(card["model"]["version"])).set(1)
            self.refused.labels(self.gateway).set(len(card["serving"]["refused"]))
        return generate_latest(self.registry)
