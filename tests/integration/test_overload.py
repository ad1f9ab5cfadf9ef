"""A model that stops under load: reading pauses, memory is bounded, and all results come once it goes on.

The long form, with calls in real time: `python -m pytest tests/integration/test_overload.py -m nightly -s -n0`.
"""

import os
import re
import resource
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

import pytest

pytestmark = pytest.mark.timeout(400)
COPIES = 3
IN_FLIGHT = 4
STOPPED_S = 15.0
LONG_S = 180.0
WAVES = 7
"""Each of half a minute: calls still come when the model goes on."""
FRESH_S = 120.0
MOST_AGE_S = 20.0
"""Age of the oldest open audio with a worker that keeps up: an utterance of 15 s, and what is on its way."""
MOST_UNREAD = 100
"""Records: five seconds of the calls of a wave."""
MOST_MB = 50
"""What the ingest process may take beside what it had: the client's fetches are most of it."""


def resident_mb(pid):
    """Resident memory of a process, MB."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize() / 1e6


def gauges(worker):
    """The worker's metrics by name, those with labels without them."""
    found = re.findall(r"^(callmood_[a-z_]+)(?:{.*})? ([0-9.e+]+)$", worker.probe("metrics")[1], re.MULTILINE)
    return {name: float(value) for name, value in found}


def test_a_stopped_model_pauses_reading_and_loses_nothing(pipeline, recorded, wait_until):
    """While it stands, a bounded number of utterances waits in bounded memory, and the rest waits in Kafka."""
    worker = pipeline.start_worker(model__max_in_flight=str(IN_FLIGHT), kafka__max_poll_records="50").wait_ready()
    calls = {f"{name}-{uuid4().hex[:8]}": recorded.call(name) for name in recorded.names for _ in range(COPIES)}
    ingest, inference = worker.pid("ingest-0"), worker.pid("inference")
    before_mb, most_mb = resident_mb(ingest), 0.0
    os.kill(inference, signal.SIGSTOP)
    try:
        pipeline.send(calls)
        assert wait_until(lambda: gauges(worker).get("callmood_paused") == 1)
        until_s = time.monotonic() + STOPPED_S
        while time.monotonic() < until_s:
            most_mb = max(most_mb, resident_mb(ingest) - before_mb)
            time.sleep(0.2)
        held = gauges(worker)
        assert worker.probe("livez")[0] == 200
    finally:
        os.kill(inference, signal.SIGCONT)
    assert held["callmood_records_total"] < sum(len(list(one.records())) for one in calls.values()) / 2
    assert IN_FLIGHT <= held["callmood_in_flight_utterances"] <= IN_FLIGHT + 50
    assert most_mb < MOST_MB
    pipeline.assert_exact(calls)
    assert wait_until(lambda: gauges(worker)["callmood_in_flight_utterances"] == 0)
    fresh = gauges(worker)
    assert (fresh["callmood_paused"], fresh["callmood_unread_records"]) == (0, 0)
    assert not worker.lines("process exited")
    worker.stop()


@pytest.mark.nightly
@pytest.mark.timeout(1_200)
def test_after_three_minutes_without_a_model_results_are_soon_fresh_again(pipeline, recorded, wait_until):
    """Under load, a model that stood for 3 minutes is caught up with in 2, in bounded memory, with exact results."""
    worker = pipeline.start_worker(model__max_in_flight=str(IN_FLIGHT), worker__stall_s="600").wait_ready()
    waves = [{f"{n}-{wave}-{uuid4().hex[:8]}": recorded.call(n) for n in recorded.names} for wave in range(WAVES)]
    ingest, inference = worker.pid("ingest-0"), worker.pid("inference")
    before_mb, most_mb = resident_mb(ingest), 0.0
    with ThreadPoolExecutor(1) as sender:
        sent = sender.submit(lambda: [pipeline.send(wave, speed=1.0) for wave in waves])
        os.kill(inference, signal.SIGSTOP)
        try:
            until_s = time.monotonic() + LONG_S
            while time.monotonic() < until_s:
                most_mb = max(most_mb, resident_mb(ingest) - before_mb)
                time.sleep(0.5)
            held = gauges(worker)
        finally:
            os.kill(inference, signal.SIGCONT)
        began_s = time.monotonic()
        assert wait_until(lambda: is_fresh(gauges(worker)), FRESH_S, 0.5)
        print(f"fresh {time.monotonic() - began_s:.1f} s after a stop of {LONG_S:.0f} s; {most_mb:.0f} MB")  # noqa: T201 - a figure
        sent.result()
    assert held["callmood_paused"] == 1
    assert held["callmood_oldest_unprocessed_audio_seconds"] > LONG_S / 2
    assert most_mb < MOST_MB
    pipeline.assert_exact({call_id: call for wave in waves for call_id, call in wave.items()})
    assert not worker.lines("process exited")
    worker.stop()


def is_fresh(now):
    """Whether reading goes on, and nothing old is open."""
    is_read = now["callmood_paused"] == 0 and now["callmood_unread_records"] < MOST_UNREAD
    return is_read and now["callmood_oldest_unprocessed_audio_seconds"] < MOST_AGE_S
