"""Which utterances get no emotion while the model is behind: old and short ones that wait for it."""

import pytest

from callmood.schemas.common import Encoding
from callmood.worker.inference import checks, wire
from callmood.worker.inference.overload import is_skipped
from callmood.worker.records import Prediction, Speech
from callmood.worker.settings import ModelSettings
from tests.serving import SURE, opened


class Speaking:
    """A speech check that finds a person in every utterance."""

    def judge(self, sound):
        """As `SpeechCheck.judge`."""
        return Speech(0.9, 0, 1_000 * len(sound[2]) // 8_000)


@pytest.mark.parametrize(
    ("age_s", "voice_s", "expected"),
    [
        (9.9, 0.5, False),
        (10.0, 0.5, True),
        (10.0, 1.9, True),
        (10.0, 2.0, False),
        (20.0, 3.9, True),
        (20.0, 4.0, False),
        (30.0, 5.9, True),
        (1_000.0, 6.0, False),
        (-3_600.0, 0.5, False),
    ],
)
def test_the_later_the_longer_are_the_utterances_that_are_skipped(age_s, voice_s, expected):
    """From the age that is set, short ones; at twice the age, of twice the length; never more than three times."""
    settings = ModelSettings(skip_after_s=10.0, skip_below_s=2.0)
    assert is_skipped(settings, age_s=age_s, voice_s=voice_s) is expected


@pytest.mark.parametrize("age_s", [0.0, 1e9])
def test_nothing_is_skipped_by_default(age_s):
    """Without a limit of age, an utterance is never left out."""
    assert not is_skipped(ModelSettings(), age_s=age_s, voice_s=0.1)


def test_a_model_that_is_behind_skips_what_is_old_and_short():
    """When a batch begins, the old short ones that are left get an answer without the model; the others wait on."""
    with opened(skip_after_s=5.0, skip_below_s=1.5) as scene:
        for number in range(2):  # the device has enough to do
            scene.ask(f"before {number}")
            scene.step()
        for id_, seconds in (("first", 4), ("short", 1), ("long", 9)):
            scene.ask(id_, bytes(8_000 * seconds))
        scene.step()
        scene.now_s += 6.0
        scene.ask("new", bytes(4_000))
        scene.step()
        scene.end_batches(0)
        scene.step()
        answers = {answer.id: answer.prediction for answer in scene.received(wire.Answer)}
        assert answers == {"before 0": SURE, "short": Prediction(None, queue_ms=6_000.0, is_skipped=True)}
        scene.end_batches(1, 2)
        scene.step()
        assert [(a.id, a.prediction.is_skipped) for a in scene.received(wire.Answer)] == [
            ("before 1", False),
            ("first", False),
        ]
        assert sorted(map(len, scene.device.heard)) == [4_000, 8_000, 8_000, 32_000, 72_000]


def test_what_has_just_come_is_not_skipped():
    """An utterance that has not waited for longer than a batch should take goes on waiting, whatever its age."""
    with opened(skip_after_s=5.0, skip_below_s=1.5) as scene:
        for number in range(2):
            scene.ask(f"before {number}")
            scene.step()
        scene.ask("first", bytes(8_000 * 4))
        request = wire.Request("old", Encoding.PCMU, 8_000, bytes(8_000), ended_ms=1_000)
        scene.client.send(wire.pack(request))
        scene.step()
        scene.now_s += 0.4
        scene.end_batches(0)
        scene.step()
        assert [answer.id for answer in scene.received(wire.Answer)] == ["before 0"]
        assert len(scene.device.heard) == 3


def test_a_model_with_room_skips_nothing(monkeypatch):
    """What the speech check has held up begins with the next batch that there is room for, whatever its age."""
    monkeypatch.setattr(checks, "_open", Speaking)
    with opened(skip_after_s=5.0, skip_below_s=1.5, speech_check=True) as scene:
        for id_, seconds in (("long", 9), ("short", 1)):
            request = wire.Request(id_, Encoding.PCMU, 8_000, bytes(8_000 * seconds), ended_ms=1_000)
            scene.client.send(wire.pack(request))
        scene.server._receive()
        scene.now_s += 1.0
        scene.check()
        assert sorted(map(len, scene.device.heard)) == [8_000, 72_000]
        assert scene.received(wire.Answer) == []


def test_an_idle_model_skips_nothing():
    """An utterance of any age is analysed if the model has nothing else to do: a producer's clock may be late."""
    with opened(skip_after_s=5.0) as scene:
        scene.client.send(wire.pack(wire.Request("old", Encoding.PCMU, 8_000, bytes(8_000), ended_ms=1_000)))
        scene.step()
        scene.end_batches(0)
        scene.step()
        assert [(answer.id, answer.prediction) for answer in scene.received(wire.Answer)] == [("old", SURE)]


def test_a_skipped_utterance_keeps_its_speech_check(monkeypatch):
    """What is skipped is known to be speech, so that it counts as talk."""
    monkeypatch.setattr(checks, "_open", Speaking)
    with opened(skip_after_s=5.0, speech_check=True) as scene:
        for number in range(2):
            scene.ask(f"before {number}")
            scene.check()
        for id_, seconds in (("first", 4), ("short", 1)):
            scene.ask(id_, bytes(8_000 * seconds))
        scene.check()
        scene.now_s += 60.0
        scene.end_batches(0)
        scene.step()
        skipped = [a.prediction for a in scene.received(wire.Answer) if a.prediction.is_skipped]
        assert [prediction.speech for prediction in skipped] == [Speech(0.9, 0, 1_000)]
