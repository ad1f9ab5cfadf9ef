"""The running aggregate of a call, and when it is published."""

from dataclasses import replace

import msgpack
from telephony import Leg, Worker, heard, log_of, quiet, voice

from callmood.schemas.common import Notice
from callmood.worker.call.ending import End
from callmood.worker.call.fold import Fold
from callmood.worker.call.rule import DEFAULT_RULES, Measure, Rule
from callmood.worker.records import Prediction, Result, Speech, Unheard

SILENCE_RULE = Rule(name="silence", measure=Measure.SILENCE, raise_at=5, clear_at=0)


def utterance():
    """A real utterance of a customer."""
    (only,) = Worker().read(log_of(Leg().media(quiet(0.6) + voice(1) + quiet(1)))).waiting
    return only


def test_a_call_starts_at_its_first_record():
    """The summary has the start before anything was said."""
    fold = Fold("call-1", DEFAULT_RULES)
    fold.start(1_000)
    assert fold.summary({}, None)["started_at_ms"] == 1_000


def test_results_are_numbered_from_one():
    """Each result gets the next number and a new version."""
    fold, said = Fold("call-1", DEFAULT_RULES), utterance()
    assert [fold.add(Result(said, heard(said.audio)))[1] for _ in range(3)] == [1, 2, 3]
    assert (fold.summary({}, None)["version"], fold.summary({}, None)["utterances"]) == (3, 3)


def test_saying_the_same_again_is_no_news():
    """Attributes that every record repeats cause no publication."""
    fold = Fold("call-1", DEFAULT_RULES)
    fold.describe({"queue": "sales"}, Notice.GIVEN)
    described = fold.folded
    assert not fold.is_told(None)
    fold.describe({"queue": "sales"}, Notice.GIVEN)
    assert fold.is_told(described)
    fold.describe({"queue": "support"}, None)
    assert not fold.is_told(described)
    assert fold.summary({}, None)["attributes"] == {"queue": "support"}
    assert fold.summary({}, None)["notice"] == "given"


def test_pauses_and_gaps_are_counted_apart():
    """A pause is redacted, a gap is missing, and neither is silence."""
    fold = Fold("call-1", DEFAULT_RULES)
    fold.add_unheard(Unheard(0, 2_000, is_pause=True))
    fold.add_unheard(Unheard(2_000, 2_500, is_pause=False))
    fold.finish(End("end", 3_000, is_open=False))
    summary = fold.summary({}, None)
    assert (summary["redacted_ms"], summary["missing_ms"], summary["non_talk_ms"]) == (2_000, 500, 500)


def test_alerts_are_taken_once():
    """An alert is published with the commit after it was raised, and not again."""
    fold = Fold("call-1", (SILENCE_RULE,))
    fold.finish(End("end", 20_000, is_open=False))
    (alert,) = fold.take_alerts()
    assert (alert["rule"], alert["value"]) == ("silence", 20.0)
    assert fold.take_alerts() == []


def test_a_successor_goes_on_without_telling_anything_twice():
    """A restored fold has the numbers and the episodes of the old one, and is no news by itself."""
    fold, said = Fold("call-1", (SILENCE_RULE,)), utterance()
    fold.add(Result(said, heard(said.audio)))
    fold.add_unheard(Unheard(60_000, 60_100, is_pause=False))
    restored = Fold("call-1", (SILENCE_RULE,))
    restored.load(msgpack.unpackb(msgpack.packb(fold.save())))
    assert restored.summary({}, None) == fold.summary({}, None)
    for one in (fold, restored):
        one.take_alerts()
        one.finish(End("end", 90_000, is_open=False))
    assert restored.take_alerts() == fold.take_alerts() != []
    assert restored.add(Result(said, None)) == (Result(said, None), 2)


def test_another_sound_raises_the_alert_on_silence_and_no_other():
    """A minute of music on hold is a minute in which nobody speaks; it moves no window over labels past them."""
    bad = Rule(name="bad", measure=Measure.NEGATIVITY, raise_at=3, clear_at=1, min_labels=1, window_s=60)
    fold = Fold("call-1", (SILENCE_RULE, bad))
    said = replace(utterance(), voiced_start_ms=None, voiced_end_ms=None)
    happy, angry = Prediction((0.0, 1.0, 0.0, 0.0)), Prediction((1.0, 0.0, 0.0, 0.0))
    fold.add(Result(replace(said, start_ms=0, end_ms=9_000), happy))
    fold.add(Result(replace(said, start_ms=10_000, end_ms=12_000), angry))
    assert fold.take_alerts() == []
    for start_ms in range(12_000, 102_000, 15_000):  # from 69 s on, only the anger would be in the window
        fold.add(Result(replace(said, start_ms=start_ms, end_ms=start_ms + 15_000), None, Speech(0.1, 0, 0)))
    fold.finish(End("end", 102_000, is_open=False))
    (alert,) = fold.take_alerts()
    assert (alert["rule"], alert["since_ms"], alert["utterance_id"]) == ("silence", 12_000, None)


def test_a_call_that_is_given_up_ends_with_what_was_told():
    """Neither a result nor an alert that no summary has told is in the last one; its version is new."""
    fold, said = Fold("call-1", (SILENCE_RULE,)), utterance()
    fold.add(Result(said, heard(said.audio)))
    told, before = fold.folded, fold.summary({}, None)
    fold.add(Result(said, heard(said.audio)))
    fold.finish(End("end", 90_000, is_open=False))
    newest = fold.summary({}, None)
    assert newest["alerts"]
    fold.give_up(told)
    changed = {"status": "failed", "end_reason": "given_up", "version": newest["version"] + 1}
    assert fold.summary({}, None) == before | changed | {"need": "none", "signs": []}


def test_what_an_end_waits_for_is_missing_only_until_the_call_goes_on():
    """The lost audio counts while the call shows as ended, and no longer once it goes on."""
    fold = Fold("call", DEFAULT_RULES)
    fold.finish(End("end", 4_000, is_open=True, missing=Unheard(3_000, 4_000, is_pause=False)))
    assert (fold.folded.aggregate.timeline.end_ms, fold.may_go_on) == (4_000, True)
    assert fold.summary({}, None)["missing_ms"] == 1_000
    fold.reopen()
    assert fold.summary({}, None)["missing_ms"] == 0
    assert not fold.may_go_on
