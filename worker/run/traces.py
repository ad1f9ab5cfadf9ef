"""OpenTelemetry spans of committed utterances and their stages, in the trace of their audio.

Spans are created after the commit, from the times in the record. If a collector does not answer, spans are lost, but
the worker loses no audio and no time. Attributes follow OpenTelemetry's conventions for messaging; calls are hashed, as
in logs.
"""
# ruff: noqa: PLC0415 - OpenTelemetry is an extra: only a worker that exports traces needs it

import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from callmood.worker.commits import Commit
from callmood.worker.errors import ConfigurationError
from callmood.worker.logs import call_hash
from callmood.worker.settings import TraceSettings

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import SpanProcessor
    from opentelemetry.trace import Span, Tracer

_EXPORT_S = 2.0
_FLUSH_S = 3.0

_tracer: "Tracer | None" = None


@contextmanager
def exported(settings: TraceSettings, *, process: str) -> Iterator[None]:
    """Export spans to the collector of the settings during the context; without a collector there are none.

    OpenTelemetry's own variables set the rest: `OTEL_TRACES_SAMPLER`, `OTEL_EXPORTER_OTLP_HEADERS`,
    `OTEL_RESOURCE_ATTRIBUTES`.

    Raises:
        ConfigurationError: OpenTelemetry is not installed.
    """
    if settings.endpoint is None:
        yield
        return
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise ConfigurationError(
            "CALLMOOD_TRACE__ENDPOINT needs OpenTelemetry: pip install 'callmood[otel]'"
        ) from error
    exporter = OTLPSpanExporter(f"{settings.endpoint.rstrip('/')}/v1/traces", timeout=_EXPORT_S)
    with processed(BatchSpanProcessor(exporter), process=process):
        yield


@contextmanager
def processed(processor: "SpanProcessor", *, process: str) -> Iterator[None]:
    """Send spans through this processor during the context; at its end, wait a few seconds for the last ones."""
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider

    global _tracer  # noqa: PLW0603 - one for the process, like logs and metrics
    resource = {
        "service.name": os.environ.get("OTEL_SERVICE_NAME", "callmood"),
        "service.version": version("callmood"),
        "callmood.process": process,
    }
    provider = TracerProvider(resource=Resource.create(resource), shutdown_on_exit=False)
    provider.add_span_processor(processor)
    _tracer = provider.get_tracer("callmood")
    try:
        yield
    finally:
        _tracer = None
        flush = threading.Thread(target=provider.shutdown, daemon=True)  # it has no time limit of its own
        flush.start()
        flush.join(_FLUSH_S)


def committed(commit: Commit, rendered_s: float, durable_s: float) -> None:
    """The spans of a commit: from the capture of an utterance's last sample until its result is durable.

    Args:
        commit: a durable commit.
        rendered_s: when its records were made, in s since 1970; their latencies end there.
        durable_s: when the store had them, in s since 1970.
    """
    if _tracer is None:
        return
    for utterance in commit.utterances:
        latency = {stage: (took_ms or 0.0) / 1000 for stage, took_ms in utterance["latency_ms"].items()}
        known_s = rendered_s - latency["publish"]
        began_s = known_s - latency["inference"]
        queued_s = began_s - latency["queue"]
        captured_s = min(rendered_s - latency["total"], queued_s)  # audio may come before the time it claims
        parent = _context(utterance)
        span = _tracer.start_span("utterance", parent, attributes=_attributes(utterance), start_time=_ns(captured_s))
        _stage(span, "decide", captured_s, min(captured_s + latency["decide"], queued_s))
        if utterance["emotion"] is not None:
            _stage(span, "queue", queued_s, began_s)
            _stage(span, "inference", began_s, known_s)
        _stage(span, "commit", known_s, durable_s)
        span.end(_ns(durable_s))


def projected(commit: Commit, began_s: float, durable_s: float) -> None:
    """With `output=both`: the span of each traced utterance's way from Kafka into Redis, times in s since 1970."""
    if _tracer is None:
        return
    for utterance in commit.utterances:
        if utterance.get("traceparent"):
            attributes = _attributes(utterance)
            span = _tracer.start_span("project", _context(utterance), attributes=attributes, start_time=_ns(began_s))
            span.end(_ns(durable_s))


def _stage(parent: "Span", name: str, began_s: float, ended_s: float) -> None:
    from opentelemetry.trace import set_span_in_context

    assert _tracer is not None
    _tracer.start_span(name, set_span_in_context(parent), start_time=_ns(began_s)).end(_ns(ended_s))


def _context(utterance: Mapping[str, Any]) -> "Context":
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    return TraceContextTextMapPropagator().extract({"traceparent": utterance["traceparent"] or ""})


def _attributes(utterance: Mapping[str, Any]) -> dict[str, Any]:
    source, emotion = utterance.get("source") or {}, utterance.get("emotion") or {}
    partition = source.get("partition")
    attributes = {
        "messaging.system": "kafka",
        "messaging.destination.name": source.get("topic"),
        "messaging.destination.partition.id": None if partition is None else str(partition),
        "messaging.kafka.offset": source.get("last_offset"),
        "callmood.call": call_hash(utterance["call_id"]),
        "callmood.number": utterance["number"],
        "callmood.role": utterance["role"],
        "callmood.start_ms": utterance["start_ms"],
        "callmood.end_ms": utterance["end_ms"],
        "callmood.label": emotion.get("label"),
        "callmood.confidence": emotion.get("confidence"),
        "callmood.withheld": utterance.get("withheld"),
    }
    return {name: value for name, value in attributes.items() if value is not None}


def _ns(seconds: float) -> int:
    return int(seconds * 1e9)
