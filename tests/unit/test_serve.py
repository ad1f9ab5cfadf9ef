"""The inference process's loop: batches overlap and keep their order, on a device and a clock that the test moves."""

import sys
import threading
from concurrent.futures import wait
from contextlib import suppress

import pytest

from callmood.worker.errors import ModelError
from callmood.worker.inference import checks, serve, wire
from callmood.worker.records import Prediction, Speech
from callmood.worker.settings import ModelSettings
from tests.serving import LIMIT_S, Cores, Device, opened


@pytest.fixture
def scene():
    with opened() as one:
        yield one


def test_a_client_learns_which_model_answers(scene):
    """The first beat after the model is warm has its name and digest, and nothing runs."""
    assert scene.received(wire.Beat)[-1] == wire.Beat(Device.info, 0.0, 0.0, 0.0)


def test_clients_learn_at_once_that_the_model_is_ready(scene):
    """They do not wait for the next beat, until which they would send nothing."""
    scene.step()
    scene.received(wire.Beat)
    scene.step()
    assert scene.received(wire.Beat) == []
    scene.server._batches.engine = None  # as before it was opened
    scene.step()
    assert [beat.model for beat in scene.received(wire.Beat)] == [Device.info]


def test_the_next_batch_is_started_while_one_runs(scene):
    """Two are under way, never three; the first one's answers come first, and a batch that is done makes room."""
    for number in range(3):
        scene.ask(f"utterance {number}")
        scene.step()
        assert len(scene.device.batches) == min(number + 1, 2)
    scene.device.batches[1][0].set()
    scene.step()
    assert scene.received(wire.Answer) == []
    assert len(scene.device.batches) == 2
    scene.end_batches(0, 1)
    scene.step()
    assert len(scene.device.batches) == 3
    assert [answer.id for answer in scene.received(wire.Answer)] == ["utterance 0", "utterance 1"]


def test_a_batch_is_busy_from_when_the_one_before_it_was_done(scene):
    """Waiting behind another is not hanging: the time in the beats begins again with each batch."""
    for number in range(2):
        scene.ask(f"utterance {number}")
        scene.step()
    scene.now_s += 5.0
    scene.step()
    assert scene.received(wire.Beat)[-1].busy_s == 5.0
    scene.now_s += 2.0
    scene.end_batches(0)
    scene.step()
    assert scene.received(wire.Beat)[-1].busy_s == 0.0
    scene.now_s += 1.0
    scene.step()
    assert scene.received(wire.Beat)[-1].busy_s == 1.0


def test_the_batcher_learns_how_long_each_batch_had_the_model(scene, monkeypatch):
    """Of two batches that overlap, the second is charged from the end of the first."""
    learned = []
    monkeypatch.setattr(scene.server._batcher, "learn", lambda *figures: learned.append(figures))
    for number in range(2):
        scene.ask(f"utterance {number}")
        scene.step()
    for number, took_s in enumerate((7.0, 3.0)):
        scene.now_s += took_s
        scene.end_batches(number)
        scene.step()
    assert learned == [(1.0, 1.0, 7.0), (1.0, 1.0, 3.0)]


def test_a_batch_costs_what_it_has_padded(scene, monkeypatch):
    """The cost is for padded seconds, as the budget of a batch is."""
    learned = []
    monkeypatch.setattr(scene.server._batcher, "learn", lambda *figures: learned.append(figures))
    scene.ask("long")
    scene.ask("short", bytes(7_600))
    scene.step()
    scene.now_s += 4.0
    scene.end_batches(0)
    scene.step()
    assert learned == [(1.0, 2.0, 4.0)]


def test_a_cpu_computes_batches_side_by_side():
    """The first has all threads, the next those of a slot; each is answered once it is done, and makes room."""
    with opened(Cores()) as scene:
        for number in range(3):
            scene.ask(f"utterance {number}")
            scene.step()
            assert scene.device.has_begun(min(number + 1, 2))
        assert scene.device.taken == [2, 1]
        scene.device.batches[1][0].set()
        wait([scene.server._batches._running[1].future], LIMIT_S)
        scene.received(wire.Beat)
        scene.now_s += 3.0
        scene.step()
        answer, beat = scene.received((wire.Answer, wire.Beat))
        assert (answer.id, beat.busy_s) == ("utterance 1", 3.0)
        assert scene.device.has_begun(3)


def test_while_others_wait_a_batch_on_a_cpu_has_the_threads_of_a_slot():
    """Batches of one thread each need not wait for one another's threads."""
    with opened(Cores()) as scene:
        for seconds in (9, 4, 1):
            scene.ask(f"{seconds} s", bytes(8_000 * seconds))
        scene.step()
        assert scene.device.has_begun(2)
        assert scene.device.taken == [1, 1]


def test_the_batcher_learns_how_long_each_batch_was_computed(monkeypatch):
    """Of two batches side by side, each is charged from its own start, and as if it had the threads of a slot."""
    learned = []
    with opened(Cores()) as scene:
        monkeypatch.setattr(scene.server._batcher, "learn", lambda *figures: learned.append(figures))
        for number in range(2):
            scene.ask(f"utterance {number}")
            scene.step()
            assert scene.device.has_begun(number + 1)
            scene.now_s += 1.0
        for number in (1, 0):
            scene.device.batches[number][0].set()
            wait([scene.server._batches._running[number].future], LIMIT_S)
            scene.step()
    assert learned == [(1.0, 1.0, 1.0), (1.0, 1.0, 4.0)]


def test_batches_side_by_side_share_the_memory_of_one():
    """Each may hold its part of the seconds of audio of a batch, and less once the engine finds that less fits."""
    with opened(Cores(), batch_seconds=60) as scene:
        assert scene.server._batcher.batch_seconds == 30
        scene.device.batch_seconds = 7.0
        scene.ask("utterance")
        scene.step()
        assert scene.device.has_begun(1)
        scene.end_batches(0)
        scene.step()
        assert scene.server._batcher.batch_seconds == 7


def test_after_an_error_the_process_does_not_wait_for_what_runs():
    """Another process can take over at once."""
    with suppress(ModelError), opened() as scene:
        scene.ask("utterance")
        scene.step()
        raise ModelError("lost")
    (running,) = scene.server._batches._running
    assert not running.future.done()
    scene.device.batches[0][0].set()


def test_answers_carry_the_time_in_the_queue(scene):
    """An utterance that waits behind two batches has waited until its own was started."""
    for number in range(3):
        scene.ask(f"utterance {number}")
        scene.step()
    scene.now_s += 4.0
    scene.end_batches(0, 1)
    scene.step()
    scene.end_batches(2)
    scene.step()
    assert [answer.prediction.queue_ms for answer in scene.received(wire.Answer)] == [0.0, 0.0, 4000.0]


def test_beats_keep_their_distance(scene):
    """A client hears from the process every `BEAT_S`, not more often, however busy the loop is."""
    scene.received(wire.Beat)
    scene.now_s += serve.BEAT_S / 2
    scene.step()
    assert scene.received(wire.Beat) == []
    scene.now_s += serve.BEAT_S / 2
    scene.step()
    scene.step()
    assert len(scene.received(wire.Beat)) == 1


def test_a_batch_that_is_done_ends_the_wait(scene, monkeypatch):
    """The loop that waits for its next beat goes on as soon as a batch is done, with the answers."""
    monkeypatch.setattr(serve, "BEAT_S", 1_000.0)
    scene.now_s += 1.0
    scene.ask("utterance")
    scene.step()
    threading.Timer(0.0, scene.device.batches[0][0].set).start()
    while not (answers := scene.received(wire.Answer)):
        scene.server.turn()  # waits up to 1,000 s unless something wakes it: then the test runs into its time limit
    assert [answer.id for answer in answers] == ["utterance"]


def test_a_thread_that_ends_the_wait_never_waits_itself(scene):
    """A loop that is busy for long lets its threads go on, however often they call it, and then turns as before."""
    for _ in range(100_000):  # more than a socket takes
        scene.server._rouse()
    scene.ask("utterance")
    while not scene.device.batches:
        scene.server.turn()
    assert scene.device.heard == [bytes(8_000)]


def test_what_a_client_leaves_behind_is_dropped(scene):
    """A client that is gone when it is sent a beat is forgotten, with all that it had in the queue."""
    for number in range(5):
        scene.ask(f"utterance {number}")
        scene.step()
    assert len(scene.server._batcher) == 3
    scene.client.close()
    while scene.server._clients:  # ZeroMQ closes in a thread of its own: the beats after that cannot be sent
        scene.now_s += serve.BEAT_S
        scene.step()
    assert len(scene.server._batcher) == 0
    assert scene.server._requests == {}


def test_what_a_started_batch_raises_ends_the_process(scene):
    """A device that fails after the batch was started is not hidden."""
    scene.ask("utterance")
    scene.step()
    scene.device.batches[0][1].append(RuntimeError("an illegal memory access was encountered"))
    scene.end_batches(0)
    with pytest.raises(RuntimeError, match="illegal memory"):
        scene.step()


NOBODY, WHOLE = Speech(0.1, 0, 0), Speech(0.9, 0, 1_000)
VERDICTS = {
    b"n": NOBODY,
    b"s": WHOLE,
    b"p": Speech(0.8, 250, 750),
    b"m": Speech(0.7, 0, 1_000, is_sparse=True),
    b"f": None,
}


class Check:
    """A speech check that knows an utterance by its first byte."""

    def judge(self, sound):
        """As `SpeechCheck.judge`."""
        return VERDICTS[sound[2][:1]]


@pytest.fixture
def checked(monkeypatch):
    """A scene with the speech check."""
    monkeypatch.setattr(checks, "_open", Check)
    with opened(speech_check=True) as one:
        yield one


def audio(kind):
    """A second of audio whose bytes are all different enough to be found again."""
    return kind + bytes(range(200)) * 39 + bytes(199)


@pytest.mark.parametrize("speech_check", [True, False])
def test_the_model_never_hears_what_the_policy_withholds(monkeypatch, speech_check):
    """An utterance without a wish for emotion is answered with the check's verdict alone, and is in no batch."""
    monkeypatch.setattr(checks, "_open", Check)
    with opened(speech_check=speech_check) as scene:
        for kind in (b"s", b"n", b"p", b"m", b"f"):
            scene.ask(kind.decode(), audio(kind), wants_emotion=False)
        scene.check()
        answers = {answer.id: answer.prediction for answer in scene.received(wire.Answer)}
        verdicts = {kind.decode(): verdict if speech_check else None for kind, verdict in VERDICTS.items()}
        assert answers == {id_: Prediction(None, speech=verdict) for id_, verdict in verdicts.items()}
        assert scene.device.heard == []
        assert len(scene.server._batcher) == 0


def test_the_model_hears_the_part_that_counts(checked):
    """Of speech it hears the part, of an utterance without a verdict the whole, of other sound nothing."""
    for kind in (b"s", b"n", b"p", b"m", b"f"):
        checked.ask(kind.decode(), audio(kind))
    checked.check()
    early = {answer.id: answer.prediction for answer in checked.received(wire.Answer)}
    assert early == {
        "n": Prediction(None, speech=NOBODY),
        "m": Prediction(None, "other_sound", speech=VERDICTS[b"m"]),
    }
    while len(checked.device.heard) < 3:
        checked.step()
    assert sorted(checked.device.heard) == sorted([audio(b"s"), audio(b"f"), audio(b"p")[2_000:6_000]])
    for done, _ in checked.device.batches:
        done.set()
    checked.end_batches(*range(len(checked.device.batches)))
    checked.step()
    late = {answer.id: answer.prediction.speech for answer in checked.received(wire.Answer)}
    assert late == {kind: VERDICTS[kind.encode()] for kind in ("s", "p", "f")}


def test_a_client_that_is_gone_leaves_no_verdict_behind(checked):
    """What was at the check when its client went is dropped."""
    checked.ask("s", audio(b"s"))
    checked.server._receive()
    checked.server._requests.clear()
    checked.check()
    assert checked.received(wire.Answer) == []
    assert len(checked.server._batcher) == 0


def test_a_check_that_hangs_is_seen_in_the_beats(checked, monkeypatch):
    """The time at the check counts as busy, as the time in a batch does."""
    held = threading.Event()
    monkeypatch.setattr(Check, "judge", lambda *_: held.wait(LIMIT_S) and WHOLE)
    checked.ask("s", audio(b"s"))
    checked.step()
    checked.now_s += 9.0
    checked.step()
    assert checked.received(wire.Beat)[-1].busy_s == 9.0
    held.set()
    checked.check()


@pytest.fixture
def unchanged(monkeypatch):
    """The process has its signals and the time for which its threads run as before."""
    before_s = sys.getswitchinterval()
    monkeypatch.setattr(serve.signal, "signal", lambda *_: None)
    yield
    sys.setswitchinterval(before_s)


@pytest.mark.usefixtures("unchanged")
def test_a_check_that_cannot_be_loaded_ends_the_process_at_once(tmp_path, monkeypatch):
    """Also while the model is still loaded, which can take a minute."""
    loading = threading.Event()

    def fail():
        raise ModelError("the weights of the speech check are damaged")

    monkeypatch.setattr(checks, "_open", fail)
    with pytest.raises(ModelError, match="weights of the speech check"):
        serve.serve(ModelSettings(), f"ipc://{tmp_path}/socket", lambda _: loading.wait(LIMIT_S))
    loading.set()


@pytest.mark.usefixtures("unchanged")
def test_the_threads_of_the_process_take_turns_often(tmp_path):
    """Those of the speech check compute in Python, and the model's thread must not wait 5 ms for them each time."""
    seen = []

    def opened(_):
        seen.append(sys.getswitchinterval())
        raise ModelError("seen enough")

    with pytest.raises(ModelError, match="seen enough"):
        serve.serve(ModelSettings(speech_check=False), f"ipc://{tmp_path}/socket", opened)
    assert seen == [pytest.approx(0.0005)]
