"""Speech far quieter than the speaker of its channel."""

import sys
from dataclasses import replace

import pytest
from telephony import Leg, Worker, behind, both, facts, line, log_of, unsent

from callmood.schemas.common import Encoding, Role
from callmood.worker.call.background import QUIETER_DB, WINDOW_MS, judge
from callmood.worker.g711 import encode_pcmu, to_s16
from callmood.worker.records import Prediction, Record, Result, Speech, Utterance
from callmood.worker.settings import Settings

SPEAKER, OTHER = [(1.0, 3.0), (11.0, 3.0)], [(6.0, 3.0), (16.0, 3.0)]


def channel(quieter_db: float) -> bytes:
    """A speaker takes turns with somebody behind, so much quieter."""
    loud, quiet = (to_s16(Encoding.PCMU, line(20, turns, noise_dbfs=-72)).astype(float) for turns in (SPEAKER, OTHER))
    return encode_pcmu((loud + quiet * 10 ** (-quieter_db / 20)).round().astype("int16"))


def spoken(utterance: Utterance) -> Prediction:
    """The check finds speech everywhere, and the model is sure."""
    return Prediction((0.9, 0.05, 0.03, 0.02), speech=Speech(0.9, 0, utterance.end_ms - utterance.start_ms))


def _read(worker: Worker, records: list[Record]) -> Worker:
    worker.read(records)
    for one in worker.waiting:
        worker.partition.answer(one.call_id, one.id, spoken(one), 0.0)
    worker.waiting = []
    worker.commit_answered()
    return worker


def analyse(audio: bytes, chunk_ms: float = 200, kill_after: int | None = None, layout: str = "customer"):
    """The call, from one worker, or from two of which the first is killed after a commit."""
    leg = Leg(layout=layout)
    log = log_of([*leg.media(audio, chunk_ms), leg.send("end")])
    worker = _read(Worker(), log[:kill_after])
    if kill_after:
        left = worker.store.watermark
        worker = _read(Worker(worker.store), [record for record in log if record.position.offset >= left])
    return worker.store


@pytest.mark.parametrize("quieter_db", [QUIETER_DB + 2, QUIETER_DB + 6])
def test_a_quiet_voice_behind_the_speaker_does_not_count(quieter_db):
    """It has no emotion and no talk time, and is published as background."""
    store = analyse(channel(quieter_db))
    said = [(one["background"], one["kind"], one["withheld"], one["emotion"] is None) for one in store.of()]
    assert said == [(False, "speech", None, False), (True, "not_speech", "background", True)] * 2
    customer = store.calls["call-1"]["roles"]["customer"]
    assert customer["utterances"] == customer["emotion"]["utterances"] == customer["other_sounds"] == 2
    assert customer["talk_ms"] == pytest.approx(6_000, abs=300)
    assert customer["other_sound_ms"] == pytest.approx(6_000, abs=600)


def test_the_background_is_no_utterance_that_a_busy_model_has_skipped(monkeypatch):
    """Without the model, the speaker is `overloaded` and counted; somebody behind is `background` all the same."""
    heard = spoken
    unasked = {"probabilities": None, "is_skipped": True}
    monkeypatch.setattr(sys.modules[__name__], "spoken", lambda one: replace(heard(one), **unasked))
    store = analyse(channel(QUIETER_DB + 2))
    said = [(one["background"], one["withheld"], one["emotion"]) for one in store.of()]
    assert said == [(False, "overloaded", None), (True, "background", None)] * 2
    customer = store.calls["call-1"]["roles"]["customer"]
    assert (customer["utterances"], customer["skipped"], customer["other_sounds"]) == (2, 2, 2)


@pytest.mark.parametrize("quieter_db", [QUIETER_DB + 2, QUIETER_DB + 8])
@pytest.mark.parametrize(("chunk_ms", "kill_after"), [(200, None), (20, None), (200, 37), (200, 71)])
def test_a_television_behind_the_speaker_ends_no_sentence_and_none_of_it_counts(quieter_db, chunk_ms, kill_after):
    """It leaves no silence; talk is what the speaker says, however it is sent, and whichever worker hears it."""
    store = analyse(behind(20, [(0.2, 3.0), (8.0, 4.0)], quieter_db), chunk_ms, kill_after)
    said = [(one["voiced_start_ms"], one["voiced_end_ms"]) for one in store.of() if one["kind"] == "speech"]
    assert [pytest.approx(one, abs=250) for one in said] == [(200, 3_200), (8_000, 12_000)]
    assert any(one["background"] for one in store.of())


@pytest.mark.parametrize("quieter_db", [0, 6, 12, QUIETER_DB - 3])
def test_a_speaker_may_be_quieter_than_before(quieter_db):
    """Nobody speaks at one level."""
    assert [one["background"] for one in analyse(channel(quieter_db)).of()] == [False] * 4


@pytest.mark.parametrize("chunk_ms", [20, 1_000])
def test_records_of_any_length_give_the_same(chunk_ms):
    """What is background is a function of the audio."""
    assert unsent(analyse(channel(26), chunk_ms).of()) == unsent(analyse(channel(26)).of())


@pytest.mark.parametrize("after", [25, 50, 75])
def test_a_successor_knows_how_loud_the_speaker_was(after):
    """A takeover changes nothing."""
    assert facts(analyse(channel(26), kill_after=after)) == facts(analyse(channel(26)))


def test_each_channel_has_its_own_speaker():
    """A quiet customer is not behind a loud agent."""
    quiet, loud = line(12, [(1.0, 3.0)]), channel(0)[: 12 * 8_000]
    faint = encode_pcmu((to_s16(Encoding.PCMU, quiet) / 16).round().astype("int16"))
    assert not any(one["background"] for one in analyse(both(faint, loud), layout="customer,agent").of())


@pytest.mark.parametrize("layout", ["mixed", "unknown"])
def test_a_channel_of_several_speakers_has_no_background(layout):
    """In a mono recording, one party is often far louder than the other one."""
    assert not any(one["background"] for one in analyse(channel(26), layout=layout).of())


# -- one utterance after another


@pytest.fixture(name="loud")
def _loud() -> Result:
    leg = Leg()
    (first, *_) = Worker(configured=Settings()).read(log_of([*leg.media(channel(26)), leg.send("end")])).waiting
    return Result(first, spoken(first), Speech(0.9, 0, first.end_ms - first.start_ms))


def _later(result: Result, after_ms: int, level_db: float = 0.0, **changes: object) -> Result:
    said = result.utterance
    acoustics = replace(said.acoustics, rms_dbfs=said.acoustics.rms_dbfs + level_db)
    start_ms, end_ms = said.start_ms + after_ms, said.end_ms + after_ms
    return replace(result, utterance=replace(said, acoustics=acoustics, start_ms=start_ms, end_ms=end_ms), **changes)


@pytest.mark.parametrize(("after_ms", "is_background"), [(WINDOW_MS, True), (WINDOW_MS + 4_000, False)])
def test_a_speaker_who_has_become_quieter_is_heard_after_a_minute(loud, after_ms, is_background):
    """The phone lies on the table from now on."""
    levels, _ = judge({}, loud)
    assert judge(levels, _later(loud, after_ms, -30))[1].is_background is is_background


@pytest.mark.parametrize(("late_ms", "is_background"), [(0, True), (1, False)])
def test_the_minute_lies_between_the_end_of_one_utterance_and_the_start_of_the_next(loud, late_ms, is_background):
    """However long they are."""
    levels, _ = judge({}, loud)
    length_ms = loud.utterance.end_ms - loud.utterance.start_ms
    assert judge(levels, _later(loud, length_ms + WINDOW_MS + late_ms, -30))[1].is_background is is_background


@pytest.mark.parametrize(("quieter_db", "is_background"), [(QUIETER_DB, True), (QUIETER_DB - 1, False)])
def test_the_limit_is_in_the_background(loud, quieter_db, is_background):
    """A decibel less is not."""
    levels, _ = judge({}, loud)
    assert judge(levels, _later(loud, 5_000, -quieter_db))[1].is_background is is_background


def test_of_equal_levels_the_newest_is_enough(loud):
    """It is remembered for longer."""
    levels, _ = judge({}, loud)
    levels, _ = judge(levels, _later(loud, 5_000))
    assert [end_ms for kept in levels.values() for end_ms, _ in kept] == [loud.utterance.end_ms + 5_000]


def test_the_loudest_of_the_last_minute_counts_although_others_follow(loud):
    """A quieter word does not hide how loud the speaker was."""
    levels, _ = judge({}, loud)
    levels, word = judge(levels, _later(loud, 5_000, -12))
    assert not word.is_background
    assert judge(levels, _later(loud, 10_000, -25))[1].is_background
    assert not judge(levels, _later(loud, 64_000, -25))[1].is_background


@pytest.mark.parametrize("sound", [None, Speech(0.1, 0, 0)])
def test_no_tone_is_taken_for_the_speaker(loud, sound):
    """Without an answer of the speech check, or without speech, nothing is learned."""
    levels, _ = judge({}, replace(loud, speech=sound))
    assert not levels
    assert not judge(levels, _later(loud, 5_000, -30))[1].is_background


def test_many_channels_at_once_take_little_memory(loud):
    """A gateway that opens stream after stream makes no state that is too large to store; the newest are compared."""
    levels = {}
    for number in range(300):
        one = _later(loud, number, -20)
        levels, _ = judge(levels, replace(one, utterance=replace(one.utterance, stream=str(number))))
    quiet = _later(loud, 400, -50)
    assert len(levels) == 64
    assert judge(levels, replace(quiet, utterance=replace(quiet.utterance, stream="299")))[1].is_background


def test_a_long_call_remembers_little(loud):
    """The state does not grow with the number of utterances or streams."""
    levels = {}
    for number in range(500):
        one = _later(loud, number * 4_000, -(number % 30))
        levels, _ = judge(levels, replace(one, utterance=replace(one.utterance, stream=str(number % 50))))
    assert sum(map(len, levels.values())) <= 20
    assert loud.utterance.role is Role.CUSTOMER
