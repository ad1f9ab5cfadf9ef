"""The batches of the inference process: their threads, what is learned of them, and their end."""

import threading
from concurrent.futures import wait

import pytest
import structlog

from callmood.schemas.common import Encoding
from callmood.worker.inference.batches import Batches
from callmood.worker.settings import ModelSettings
from tests.serving import LIMIT_S, Cores, Device

SECOND = (Encoding.PCMU, 8_000, bytes(8_000))


def opened(device):
    """The batches of this device."""
    batches = Batches(ModelSettings(), lambda _: device, lambda: None)
    wait([batches._opening], LIMIT_S)
    return batches


@pytest.fixture
def cores():
    """A CPU with two slots of one thread each, which has said that it is ready."""
    device = Cores()
    batches = opened(device)
    batches.take_engine()
    yield device, batches
    for done, _ in device.batches:
        done.set()
    batches.close(wait=True)


def begin(device, batches, count, *, sounds=1):
    """Begin so many batches; returns once all run."""
    for number in range(count):
        batches.begin([f"{number}-{sound}" for sound in range(sounds)], [SECOND] * sounds, 0.0, is_last=False)
    assert device.has_begun(count)


def end(device, batches, number):
    """Let the batch that began at this place be done, and take it."""
    device.batches[number][0].set()
    begun = [batch for batch in batches._running if batch.items[0].startswith(f"{number}-")]
    wait([batch.future for batch in begun], LIMIT_S)
    return batches.take_done(1.0)


def test_what_batches_side_by_side_compute_again_counts_once(cores):
    """The share is that of all utterances, although the engine does not say which batch has computed them again."""
    device, batches = cores
    begin(device, batches, 2, sounds=4)
    device.rechecked = 2  # both of the second batch
    end(device, batches, 0)
    assert batches.rechecked == pytest.approx(2 / 4)
    end(device, batches, 1)
    assert batches.rechecked == pytest.approx(2 / 8, abs=0.01)  # newer batches count a little more


def test_what_the_engine_computed_again_before_it_was_ready_does_not_count():
    """Its warm-up is no utterance."""
    device = Cores()
    device.rechecked = 5
    batches = opened(device)
    batches.take_engine()
    begin(device, batches, 1)
    end(device, batches, 0)
    assert batches.rechecked == 0.0
    batches.close(wait=True)


def test_the_share_of_what_is_computed_again_is_at_most_one(cores):
    """The engine counts what a batch has computed again while it still runs, and another one is done."""
    device, batches = cores
    begin(device, batches, 1)
    batches.begin([f"1-{sound}" for sound in range(8)], [SECOND] * 8, 0.0, is_last=False)
    assert device.has_begun(2)
    device.rechecked = 8  # all of the second batch
    end(device, batches, 0)
    assert batches.rechecked == 1.0


def test_a_batch_that_computes_nothing_teaches_nothing(cores):
    """Utterances without audio leave the shares as they were."""
    device, batches = cores
    batches.begin(["empty"], [(Encoding.PCMU, 8_000, b"")], 0.0, is_last=True)
    device.rechecked = 1
    assert device.has_begun(1)
    device.batches[0][0].set()
    wait([batches._running[0].future], LIMIT_S)
    assert len(batches.take_done(1.0)) == 1
    assert (batches.padding, batches.rechecked) == (0.0, 0.0)


def test_the_log_says_how_many_threads_a_cpu_has():
    """A GPU has none of its own to speak of."""
    facts = []
    for device in (Cores(), Device()):
        batches = opened(device)
        with structlog.testing.capture_logs() as logs:
            assert batches.take_engine()
        facts.append([(entry["event"], entry["device"], entry["threads"]) for entry in logs])
        assert not batches.take_engine()  # said once
        batches.close(wait=True)
    assert facts == [[("model ready", "cpu", 2)], [("model ready", "cuda", None)]]


def test_after_an_error_no_batch_is_waited_for(cores):
    """The process ends at once, whatever its other threads compute; without an error they are waited for."""
    device, batches = cores
    begin(device, batches, 2)
    batches.close(wait=False)  # returns although nothing is done
    assert [batch.future.done() for batch in batches._running] == [False, False]
    closing = threading.Thread(target=batches.close, kwargs={"wait": True})
    closing.start()
    assert closing.is_alive()
    for done, _ in device.batches:
        done.set()
    closing.join(LIMIT_S)
    assert [batch.future.done() for batch in batches._running] == [True, True]
