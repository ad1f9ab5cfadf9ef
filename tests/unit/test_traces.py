"""Spans are created from records, in the trace of the audio, and only if a collector is set."""

import json
import sys
from pathlib import Path

import pytest
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from callmood.schemas.utterance import Utterance
from callmood.worker.commits import Commit, TopicPartition
from callmood.worker.errors import ConfigurationError
from callmood.worker.logs import call_hash
from callmood.worker.run import traces
from callmood.worker.settings import TraceSettings
from callmood.worker.stream_time import StreamTime

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
CALL = "+4930123456"
LATENCY = {"decide": 400.0, "queue": 20.0, "inference": 50.0, "publish": 30.0, "total": 510.0}
RENDERED_S, DURABLE_S = 1_800_000_000.0, 1_800_000_000.25
EXAMPLES = Path(__file__).parents[2] / "schemas" / "examples" / "utterance" / "valid"
UTTERANCE = json.loads((EXAMPLES / "labelled.json").read_text()) | {
    "utterance_id": f"{CALL}:0:1:3200",
    "call_id": CALL,
    "number": 3,
    "role": "customer",
    "start_ms": 400,
    "end_ms": 2400,
    **dict.fromkeys(("voiced_start_ms", "speech_start_ms"), 540),
    **dict.fromkeys(("voiced_end_ms", "speech_end_ms"), 2260),
    "emotion": {
        "label": "anger",
        "probabilities": {"anger": 0.75, "happiness": 0.1, "neutral": 0.1, "sadness": 0.05},
        "confidence": 0.75,
        "abstained": False,
        "reason": None,
    },
    "latency_ms": LATENCY,
    "source": {"topic": "audio", "partition": 4, "first_offset": 7, "last_offset": 9},
    "traceparent": f"00-{TRACE}-{PARENT}-01",
}
WITHHELD = UTTERANCE | {
    "role": "agent",
    "emotion": None,
    "withheld": "policy:role_agent",
    "model": None,
    "latency_ms": LATENCY | {"queue": None, "inference": None},
    "traceparent": None,
}


def test_the_records_of_this_file_are_legal():
    """The contract accepts what the spans are made of here."""
    for record in (UTTERANCE, WITHHELD):
        assert Utterance.model_validate_json(json.dumps(record)).call_id == CALL


def commit_of(*utterances):
    return Commit(TopicPartition("audio", 4), 10, StreamTime(), utterances=utterances)


@pytest.fixture
def spans():
    """The finished spans, once the worker of the test has exported them."""
    exporter = InMemorySpanExporter()
    with traces.processed(SimpleSpanProcessor(exporter), process="ingest-0"):
        yield exporter.get_finished_spans


def milliseconds(span):
    return tuple(round((at / 1e9 - RENDERED_S) * 1000) for at in (span.start_time, span.end_time))


def test_an_utterance_and_its_stages_are_spans_of_the_audios_trace(spans):
    """From the last sample's capture to the store's answer, stage after stage, below the span that sent the audio."""
    traces.committed(commit_of(UTTERANCE), RENDERED_S, DURABLE_S)
    *stages, whole = spans()
    assert whole.name == "utterance"
    assert (f"{whole.context.trace_id:032x}", f"{whole.parent.span_id:016x}") == (TRACE, PARENT)
    assert milliseconds(whole) == (-510, 250)
    assert {stage.name: milliseconds(stage) for stage in stages} == {
        "decide": (-510, -110),
        "queue": (-100, -80),
        "inference": (-80, -30),
        "commit": (-30, 250),
    }
    assert {stage.parent.span_id for stage in stages} == {whole.context.span_id}


def test_audio_that_comes_before_its_time_does_not_turn_spans_around(spans):
    """Replayed faster than it was spoken, audio has waited for nothing; its spans are still inside one another."""
    early = UTTERANCE | {"latency_ms": LATENCY | {"decide": 0.0, "total": 0.0}}
    traces.committed(commit_of(early), RENDERED_S, DURABLE_S)
    *stages, whole = spans()
    assert milliseconds(whole) == (-100, 250)
    assert milliseconds(stages[0]) == (-100, -100)


def test_a_span_says_what_the_log_says_and_no_call_id(spans):
    """Position, role and label, and the call as a hash, under the service name `callmood`."""
    traces.committed(commit_of(UTTERANCE), RENDERED_S, DURABLE_S)
    whole = spans()[-1]
    assert dict(whole.attributes) == {
        "messaging.system": "kafka",
        "messaging.destination.name": "audio",
        "messaging.destination.partition.id": "4",
        "messaging.kafka.offset": 9,
        "callmood.call": call_hash(CALL),
        "callmood.number": 3,
        "callmood.role": "customer",
        "callmood.start_ms": 400,
        "callmood.end_ms": 2400,
        "callmood.label": "anger",
        "callmood.confidence": 0.75,
    }
    assert whole.resource.attributes["service.name"] == "callmood"
    assert whole.resource.attributes["callmood.process"] == "ingest-0"
    assert not any(CALL in span.to_json() for span in spans())


def test_an_utterance_that_no_model_heard_has_no_stages_of_one(spans):
    """Withheld and untraced: a trace of its own, without queue and inference."""
    traces.committed(commit_of(WITHHELD), RENDERED_S, DURABLE_S)
    assert [span.name for span in spans()] == ["decide", "commit", "utterance"]
    assert spans()[-1].parent is None


def test_an_unsampled_trace_stays_unsampled(spans):
    """A caller that does not record its trace gets no spans of ours."""
    unsampled = UTTERANCE | {"traceparent": f"00-{TRACE}-{PARENT}-00"}
    traces.committed(commit_of(unsampled), RENDERED_S, DURABLE_S)
    assert spans() == ()


def test_the_projection_of_a_traced_utterance_is_a_span_of_its_trace(spans):
    """With `output=both` a traced utterance gets a span for its way from Kafka into Redis."""
    traces.projected(commit_of(UTTERANCE, WITHHELD), RENDERED_S, DURABLE_S)
    (span,) = spans()
    assert (span.name, f"{span.context.trace_id:032x}", milliseconds(span)) == ("project", TRACE, (0, 250))


def test_a_projected_record_may_lack_what_the_contract_lets_it_lack(spans):
    """A record that another program wrote gets a span of the fields that it has, or none."""
    bare = {name: value for name, value in UTTERANCE.items() if name not in {"source", "traceparent", "withheld"}}
    traces.projected(
        commit_of(bare, {**bare, "source": None, "traceparent": UTTERANCE["traceparent"]}), RENDERED_S, DURABLE_S
    )
    (span,) = spans()
    assert {name for name in span.attributes if name.startswith("messaging")} == {"messaging.system"}


def test_without_a_collector_nothing_is_traced():
    """A worker without a collector needs no OpenTelemetry and makes no span."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "opentelemetry", None)
        with traces.exported(TraceSettings(), process="ingest-0"):
            traces.committed(commit_of(UTTERANCE), RENDERED_S, DURABLE_S)
            traces.projected(commit_of(UTTERANCE), RENDERED_S, DURABLE_S)


def test_without_opentelemetry_a_collector_is_refused(monkeypatch):
    """The error names the setting and what to install."""
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    wanted = r"CALLMOOD_TRACE__ENDPOINT.*pip install 'callmood\[otel\]'"
    with (
        pytest.raises(ConfigurationError, match=wanted),
        traces.exported(TraceSettings(endpoint="http://localhost:4318"), process="ingest-0"),
    ):
        pass
