"""Metrics of this process, as prometheus_client counts them, and as they travel to the gateway."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import product
from typing import Any, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from longreel.metrics import METRICS, Metric, Part

#: A sample on its way: the metric's name, the sample's own, labels, value.
Sample = tuple[str, str, dict[str, str], float]
_BY_NAME = {metric.name: metric for metric in METRICS}
_Made = TypeVar("_Made", Counter, Gauge, Histogram)


class Instruments:
    """The metrics of one part of the service that this process records.

    Asked for again, a metric is the same one. Where the values of all labels are known they stand
    at 0 from the start: of a counter that appears with its first event, Prometheus would never see
    that event.
    """

    def __init__(self, part: Part) -> None:
        self._part = part
        self._registry = CollectorRegistry()
        self._made: dict[str, Counter | Gauge | Histogram] = {}

    def counter(self, metric: Metric) -> Counter:
        """What counts ``metric``."""
        return self._get(Counter, metric)

    def gauge(self, metric: Metric) -> Gauge:
        """What holds ``metric``."""
        return self._get(Gauge, metric)

    def histogram(self, metric: Metric) -> Histogram:
        """What observes ``metric``."""
        return self._get(Histogram, metric)

    def samples(self) -> list[Sample]:
        """All of it as it stands."""
        return [
            (_name(family), sample.name, dict(sample.labels), sample.value)
            for family in self._registry.collect()
            for sample in family.samples
            if not sample.name.endswith("_created")
        ]

    def _get(self, kind: type[_Made], metric: Metric) -> _Made:
        have = self._made.get(metric.name)
        if have is None:
            if metric.part != self._part or metric.kind != kind.__name__.lower():
                raise ValueError(f"{metric.name} is a {metric.kind} of a {metric.part}")
            labels = list(metric.labels)
            more: dict[str, Any] = {"buckets": metric.buckets} if metric.kind == "histogram" else {}
            have = kind(metric.name, metric.help, labels, registry=self._registry, **more)
            if labels:
                for values in product(*metric.labels.values()):
                    have.labels(*values)
            self._made[metric.name] = have
        assert isinstance(have, kind)
        return have


#: Of this process. Replicas and the gateway are processes of their own, but in tests.
GATEWAY = Instruments("gateway")
REPLICA = Instruments("replica")


def sample(metric: Metric, value: float, **labels: str) -> Sample:
    """One value of a metric that is not a histogram."""
    return metric.name, metric.name, labels, float(value)


def labelled(samples: Iterable[Sample], **labels: str) -> list[Sample]:
    """The samples with more labels."""
    return [(name, own, {**have, **labels}, value) for name, own, have, value in samples]


def exposition(samples: Iterable[Sample], accept: str = "") -> tuple[bytes, str]:
    """Prometheus' text format, or OpenMetrics where ``accept`` asks for it, and its content type.

    Metrics that this version does not know, as of a replica of another one, are left out.
    """
    encode, content_type = choose_encoder(accept)
    return encode(_Families(samples)), content_type


class _Families(Collector):
    def __init__(self, samples: Iterable[Sample]) -> None:
        self._samples = samples

    def collect(self) -> Iterator[Family]:
        families: dict[str, Family] = {}
        for name, own, labels, value in self._samples:
            if (metric := _BY_NAME.get(name)) is not None:
                if name not in families:
                    base = name.removesuffix("_total") if metric.kind == "counter" else name
                    families[name] = Family(base, metric.help, metric.kind)
                families[name].add_sample(own, _as_text(labels), value)
        yield from families.values()


def _as_text(labels: Mapping[str, str]) -> dict[str, str]:
    return {name: str(value) for name, value in labels.items()}


def _name(family: Family) -> str:
    return f"{family.name}_total" if family.type == "counter" else family.name
