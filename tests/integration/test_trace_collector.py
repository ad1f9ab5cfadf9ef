"""Spans as a collector gets them from a real worker, on both ways into Redis; and a collector that is not there."""

import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from types import SimpleNamespace
from uuid import uuid4

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from deploy.local.nursery import free_port

pytestmark = pytest.mark.timeout(240)

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
HEADER = ("traceparent", f"00-{TRACE}-{PARENT}-01".encode())


@pytest.fixture
def collector():
    """What stands in for a collector: OTLP over HTTP, read with the protocol's own classes. Its address and spans."""
    told = SimpleNamespace(spans=[], bodies=[])

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            request = ExportTraceServiceRequest.FromString(body)
            told.bodies.append(body)
            told.spans += [span for r in request.resource_spans for s in r.scope_spans for span in s.spans]
            self.send_response(200 if self.path == "/v1/traces" else 404)
            self.end_headers()

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        told.address = f"http://127.0.0.1:{server.server_port}"
        Thread(target=server.serve_forever, daemon=True).start()
        yield told
        server.shutdown()


@pytest.fixture
def traced(recorded, script):
    """A call whose every record belongs to a trace."""
    return script(sent._replace(headers=[*sent.headers, HEADER]) for sent in recorded.call("billing").records())


@pytest.mark.parametrize("output", [pytest.param("redis", marks=pytest.mark.nightly), "both"])
def test_a_trace_goes_from_the_audio_to_redis(pipeline, outputs, collector, traced, wait_until, output):
    """Each utterance of the contract has a span with its stages in the caller's trace, and none tells who called."""
    call_id = f"+49301234-{uuid4().hex[:8]}"
    worker = pipeline.start_worker(trace__endpoint=collector.address, worker__output=output, **outputs).wait_ready()
    began_ns = time.time_ns()
    pipeline.send({call_id: traced})
    assert wait_until(lambda: pipeline.ended([call_id])), worker.log
    worker.stop()  # the spans that were not sent yet are sent now
    utterances = pipeline.utterances(call_id)
    count, heard = len(utterances), sum(utterance["emotion"] is not None for utterance in utterances)
    spans = [span for span in collector.spans if span.trace_id.hex() == TRACE]
    assert len(spans) == len(collector.spans)
    wholes = {span.span_id: span for span in spans if span.name == "utterance"}
    assert len(wholes) == count > heard > 0
    assert {span.parent_span_id.hex() for span in wholes.values()} == {PARENT}
    expected = {"utterance": count, "decide": count, "queue": heard, "inference": heard, "commit": count}
    assert Counter(span.name for span in spans) == expected | ({"project": count} if output == "both" else {})
    for span in spans:
        whole = wholes.get(span.parent_span_id, span)
        assert whole.start_time_unix_nano <= span.start_time_unix_nano <= span.end_time_unix_nano
        assert began_ns < span.end_time_unix_nano <= whole.end_time_unix_nano < time.time_ns()
    assert not any(call_id.encode() in body for body in collector.bodies)


@pytest.mark.nightly
def test_a_collector_that_is_away_costs_spans_and_nothing_else(pipeline, recorded):
    """Results are exact, and a worker that is told to end does so in its time."""
    worker = pipeline.start_worker(trace__endpoint=f"http://127.0.0.1:{free_port()}").wait_ready()
    calls = {f"panne-{uuid4().hex[:8]}": recorded.call("panne")}
    pipeline.send(calls)
    pipeline.assert_exact(calls)
    worker.stop()
    assert worker.lines("process killed: it did not stop in time") == []
