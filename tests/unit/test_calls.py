"""One call: results are released in the order of the log, together with their checkpoint."""

from functools import partial

import msgpack
import pytest
from telephony import CONFIGURED, EPOCH_MS, Leg, both, heard, log_of, quiet, voice

from callmood.worker.call.call import Call
from callmood.worker.call.outputs import Outcome
from callmood.worker.call.rule import DEFAULT_RULES
from callmood.worker.errors import BadRecord, ConfigurationError
from callmood.worker.intake import decode
from callmood.worker.records import Prediction, Speech
from callmood.worker.settings import ModelSettings, PolicySettings, Settings

READ = partial(decode.decode, input_format="headers", max_record_ms=5000)
SENTENCE = quiet(0.6) + voice(1) + quiet(1)
UNCHECKED = Settings(model=ModelSettings(speech_check=False))


def new(settings=None):
    return Call("call-1", settings or CONFIGURED, DEFAULT_RULES)


def take(call, sent, elapsed_ms=0):
    """Let the call take records; returns the utterances for the model."""
    chunks = [READ(record) for record in log_of(sent, first_offset=call.last_offset + 1)]
    return [u for chunk in chunks for u in call.take(chunk, elapsed_ms=elapsed_ms, now_ms=0.0).utterances]


def answer(call, *utterances):
    for utterance in utterances:
        call.answer(utterance.id, heard(utterance.audio), 5.0)


def commit(call):
    """Commit what is due; returns the results."""
    due = call.due()
    if due is None:
        return ()
    call.confirm(due)
    return due.results


def numbers(call):
    return [(item.number, item.result.utterance.start_ms) for item in commit(call)]


def resume(call):
    """The first record of the stream that a successor takes again."""
    return call._checkpoint.streams["0"].seq


def test_results_come_in_the_order_of_the_log():
    """A later utterance that the model answers first waits for the earlier one."""
    call, leg = new(), Leg()
    first, second = take(call, leg.media(SENTENCE * 2))
    answer(call, second)
    assert numbers(call) == []
    answer(call, first)
    assert numbers(call) == [(1, 460), (2, second.start_ms)]
    assert numbers(call) == []


def test_an_unexpected_answer_changes_nothing():
    """A second answer, or one for an utterance of another process, gives no result."""
    call = new()
    (only,) = take(call, Leg().media(SENTENCE))
    answer(call, only, only)
    call.answer("call-1:0:0:999", heard(b""), 5.0)
    assert len(commit(call)) == 1


def test_a_withheld_utterance_is_a_result_without_emotion():
    """Without the speech check, an agent's utterance is a result at once, with the reason for having no emotion."""
    call = new(UNCHECKED)
    assert take(call, Leg(layout="agent").media(SENTENCE)) == []
    (released,) = commit(call)
    assert released.result.prediction is None
    assert released.result.utterance.withheld == "policy:role_agent"


def test_an_emotion_that_the_policy_withholds_is_dropped():
    """With the speech check, an agent's utterance is asked about; an answer with an emotion adds the verdict alone."""
    call = new()
    (asked,) = take(call, Leg(layout="agent").media(SENTENCE))
    assert not asked.wants_emotion
    assert list(commit(call)) == []
    call.answer(asked.id, Prediction((1.0, 0.0, 0.0, 0.0), speech=Speech(0.9, 0, asked.duration_ms)), 0.0)
    (released,) = commit(call)
    assert released.result.prediction is None
    assert released.result.is_speech
    assert call.fold.summary({}, None)["roles"]["agent"]["emotion"] is None


def test_the_notice_counts_from_the_record_that_says_so():
    """Before the caller was told nothing is inferred where the policy asks for it, afterwards it is."""
    call, leg = new(Settings(policy=PolicySettings(require_notice=True))), Leg()
    (before,) = take(call, leg.media(SENTENCE))
    (told,) = take(call, [leg.send("start", notice="given"), *leg.media(SENTENCE)])
    assert (before.withheld, told.withheld) == ("policy:no_notice", None)
    assert told.start_ms > 2_600


def test_an_utterance_knows_its_records_and_its_time():
    """Its offsets are those of the records that hold it, and its capture time ends with its last sample."""
    call, leg = new(), Leg()
    (utterance,) = take(call, leg.media(SENTENCE, chunk_ms=200))
    assert (utterance.first.offset, utterance.last.offset) == (460 // 200, 1_860 // 200)
    assert utterance.capture_end_ms == EPOCH_MS + 1_860
    assert utterance.id == f"call-1:0:0:{460 * 8}"


def test_the_records_of_an_utterance_are_a_range_of_offsets():
    """Where records came in disorder, the first offset is the lowest, not that of the first sample."""
    call, sent = new(), Leg().media(SENTENCE, chunk_ms=200)
    sent[2], sent[3] = sent[3], sent[2]
    (utterance,) = take(call, sent)
    assert utterance.first.offset == 2


def test_a_record_without_audio_is_no_source():
    """An event that comes long after its turn, while audio waits for a lost record, holds nothing of the utterance."""
    call, leg = new(), Leg()
    before = leg.media(quiet(0.2))
    late = leg.send("resume")
    speech = leg.media(quiet(0.4) + voice(5), chunk_ms=200)
    assert take(call, [*before, *speech[:20], *speech[21:24], late]) == []
    (utterance,) = call.stall(0, 0.0)
    assert utterance.missing_ms == 200
    assert (utterance.first.offset, utterance.last.offset) == (2, 23)


def test_streams_lie_on_one_time_line():
    """A reconnect is a new stream; its utterances stand where it was captured, and its channels are its own."""
    call = new()
    (one,) = take(call, Leg(stream="0").media(SENTENCE))
    (two,) = take(call, Leg(stream="1", start_ms=EPOCH_MS + 30_000).media(SENTENCE))
    assert (one.start_ms, two.start_ms) == (460, 30_460)
    assert (one.id, two.id) == ("call-1:0:0:3680", "call-1:1:0:3680")


def test_a_stream_that_began_before_the_first_one_seen_begins_with_it():
    """A clock that runs behind puts nothing before the beginning of the call."""
    call = new()
    take(call, Leg(stream="0").media(SENTENCE))
    (two,) = take(call, Leg(stream="1", start_ms=EPOCH_MS - 5_000).media(SENTENCE))
    assert two.start_ms == 460


def test_the_call_begins_at_its_media_zero_but_never_before_1970():
    """A record without a sensible timestamp, late in a stream, gives a start that call/1 allows."""
    call, leg = new(), Leg(start_ms=-60_000)
    leg.skip(60_000)
    take(call, leg.media(SENTENCE))
    assert call.fold.summary({}, None)["started_at_ms"] == 0


def test_a_call_has_a_limited_number_of_open_streams():
    """The 65th stream at the same time is a bad record, and the call goes on."""
    call = new()
    for number in range(64):
        take(call, Leg(stream=str(number)).media(quiet(0.1)))
    with pytest.raises(BadRecord, match="64 streams of one call are open"):
        take(call, Leg(stream="64").media(quiet(0.1)))
    assert len(take(call, Leg(stream="63").media(quiet(0.1))[:1] + later("63"))) == 1


def later(stream):
    leg = Leg(stream=stream)
    leg.media(quiet(0.1))
    return leg.media(SENTENCE)


def reconnected(call, count):
    """Streams one after the other, each of which has stalled before the next one comes."""
    told = []
    for number in range(count):
        leg = Leg(stream=str(number), start_ms=EPOCH_MS + 10_000 * number)
        told += take(call, leg.media(SENTENCE, chunk_ms=1_000), elapsed_ms=10_000 * number)
        told += call.stall(10_000 * number, 0.0)
    return told


def test_a_call_may_reconnect_any_number_of_times():
    """Every stream is heard, and the state stays as small as that of a few dozen streams."""
    call = new()
    told = reconnected(call, 200)
    assert len({utterance.id for utterance in told}) == len(told) == 200
    answer(call, *told)
    assert commit(call)
    assert len(call._streams) == 64
    assert len(call.due().saved.blob) < 20_000


def test_a_stream_that_stalled_goes_on_after_a_restart():
    """A stalled stream is stored without its detectors, and goes on as it does without a restart."""
    call = new()
    answer(call, *reconnected(call, 3))
    commit(call)
    successor = Call.restore("call-1", call.due().saved.blob, CONFIGURED, DEFAULT_RULES)
    leg = Leg(stream="1", start_ms=EPOCH_MS + 10_000)
    leg.media(SENTENCE, chunk_ms=1_000)
    again = leg.media(SENTENCE, chunk_ms=1_000)
    heard_by = [[(u.id, u.audio) for u in take(one, again, elapsed_ms=40_000)] for one in (call, successor)]
    assert heard_by[0] == heard_by[1]
    assert len(heard_by[0]) == 1


def test_records_of_a_forgotten_stream_that_are_read_again_are_duplicates():
    """A successor does not take a stream for a new one because its predecessor has forgotten it."""
    call = new()
    answer(call, *reconnected(call, 66))
    commit(call)
    successor = Call.restore("call-1", call.due().saved.blob, CONFIGURED, DEFAULT_RULES)
    first = READ(log_of(Leg(stream="0").media(SENTENCE, chunk_ms=1_000))[0])
    assert successor.take(first, elapsed_ms=0, now_ms=0.0) == Outcome([], is_duplicate=True)


def test_the_end_knows_the_streams_that_are_forgotten():
    """Their audio counts for the call's result and its length."""
    call = new()
    reconnected_ms = 10_000 * 69 + 2_600
    answer(call, *reconnected(call, 70))
    last = Leg(stream="end", start_ms=EPOCH_MS)
    take(call, [last.send("end", scope="call")])
    call.release()
    summary = call.fold.summary({}, None)
    assert (summary["status"], summary["duration_ms"]) == ("completed", reconnected_ms)


def test_the_end_closes_every_stream():
    """What is open anywhere is told, in one group with the end."""
    call, one, two = new(), Leg(stream="0"), Leg(stream="1")
    take(call, one.media(quiet(0.6) + voice(1)))
    take(call, two.media(quiet(0.6) + voice(1)))
    last = take(call, [one.send("end", scope="call")])
    assert sorted(u.stream for u in last) == ["0", "1"]
    assert call.is_over
    assert not call.is_finished
    answer(call, *last)
    call.release()
    assert call.is_finished
    assert call.fold.summary({}, None)["end_reason"] == "end"


def test_a_call_without_audio_has_failed():
    """An end without one media record is no completed call."""
    call, leg = new(), Leg()
    take(call, [leg.send("start"), leg.send("end")])
    call.release()
    assert (call.fold.summary({}, None)["status"], call.fold.summary({}, None)["end_reason"]) == ("failed", "no_audio")


def test_only_the_quiet_streams_stall():
    """A stream that was left behind is closed while the one that took over goes on undisturbed."""
    call, old, young = new(), Leg(stream="0"), Leg(stream="1")
    take(call, old.media(quiet(0.6) + voice(1)), elapsed_ms=1_000)
    take(call, young.media(quiet(0.6) + voice(1)), elapsed_ms=6_000)
    assert call.active_at_ms == 1_000
    (closed,) = call.stall(1_000, 0.0)
    assert (closed.stream, closed.cut) == ("0", "gap")
    assert call.active_at_ms == 6_000
    assert call.stall(1_000, 0.0) == []
    assert len(take(call, young.media(quiet(1)), elapsed_ms=7_000)) == 1


def test_a_state_is_stored_only_with_its_results():
    """While answers are missing, the stored state is the one before them: the successor publishes those results."""
    call, leg = new(), Leg()
    first, second = take(call, leg.media(SENTENCE * 2, chunk_ms=100))
    assert call.due() is None
    answer(call, first)
    successor = Call.restore("call-1", call.due().saved.blob, CONFIGURED, DEFAULT_RULES)
    again = log_of(Leg().media(SENTENCE * 2, chunk_ms=100))[resume(call) :]
    retold = [u for r in again for u in successor.take(READ(r), elapsed_ms=0, now_ms=0.0).utterances]
    assert [(u.id, u.audio) for u in retold] == [(second.id, second.audio)]
    answer(successor, *retold)
    assert [item.number for item in commit(successor)] == [2]


def test_records_are_settled_up_to_where_a_successor_resumes():
    """A commit settles every record before that point and none after it; the end settles the rest."""
    call, leg = new(), Leg()
    take(call, leg.media(quiet(2), chunk_ms=100))
    due = call.due()
    assert due.saved.settled_offsets == list(range(resume(call)))
    assert resume(call) in (17, 18, 19)  # the padding of what may begin next
    call.confirm(due)
    assert call.open_offsets
    still_open = list(range(resume(call), 21))
    take(call, [leg.send("end")])
    due = call.due()
    assert due.saved.settled_offsets == still_open
    call.confirm(due)
    assert not call.open_offsets


def test_what_is_not_confirmed_is_due_again():
    """If a commit is dropped, the next one holds its results and settled offsets, and what has come since."""
    call, leg = new(), Leg()
    first, second = take(call, leg.media(SENTENCE * 2, chunk_ms=100))
    answer(call, first)
    dropped = call.due()
    answer(call, second)
    due = call.due()
    assert due.results[:1] == dropped.results
    assert len(due.results) == 2
    assert set(dropped.saved.settled_offsets) < set(due.saved.settled_offsets)
    assert (dropped.is_first, due.is_first, due.is_changed) == (True, True, True)
    call.confirm(due)
    assert (call.due().results, call.due().is_first, call.due().is_changed) == ((), False, False)
    assert not call.has_news


def test_what_came_after_a_commit_was_collected_stays_due():
    """Confirming a commit forgets what it held, not the result that was released since."""
    call, leg = new(), Leg()
    first, second = take(call, leg.media(SENTENCE * 2, chunk_ms=100))
    answer(call, first)
    due = call.due()
    answer(call, second)
    call.release()
    call.confirm(due)
    assert [item.number for item in call.due().results] == [2]
    assert call.due().is_changed


def test_a_pause_that_came_late_is_settled_with_what_came_before_it():
    """A pause that arrives after it was given up is not settled with an older state, or a kill would undo it."""
    call, leg = new(), Leg()
    begin = leg.media(quiet(0.2))
    pause = leg.send("pause")
    take(call, begin + leg.media(SENTENCE + quiet(3)))
    take(call, [pause])
    assert call.is_paused
    offset_of_pause = call.last_offset
    (group,) = call._groups.waiting
    call._groups.waiting.clear()
    call._checkpoint = group.checkpoint
    call._groups.add(group, group.utterances)  # the model has not answered: the older state is stored
    assert call._checkpoint.streams["0"].paused_at_ms is None
    assert offset_of_pause not in call.due().saved.settled_offsets


def test_a_state_of_another_version_is_refused():
    """A downgrade stops with a reason instead of guessing."""
    with pytest.raises(ConfigurationError, match="format 99"):
        Call.restore("call-1", msgpack.packb({"v": 99}), CONFIGURED, DEFAULT_RULES)


def test_a_restored_call_goes_on_paused():
    """A restart of the worker does not end a pause."""
    call, leg = new(), Leg(layout="customer,agent")
    take(call, [*leg.media(both(quiet(1), quiet(1))), leg.send("pause")])
    successor = Call.restore("call-1", call.due().saved.blob, CONFIGURED, DEFAULT_RULES)
    successor.last_offset = call.last_offset
    assert successor.is_paused
    assert take(successor, leg.media(both(SENTENCE, SENTENCE))) == []


def test_a_pause_within_a_pause_releases_an_earlier_resume():
    """A `resume` that another stream still holds back, for a lost record, was sent before the newer pause."""
    call, one, other = new(), Leg(stream="0"), Leg(stream="1")
    begin = [*one.media(quiet(0.2)), *other.media(quiet(0.2))]
    first_pause = one.send("pause")
    other.media(quiet(0.2))  # lost: what follows on this stream waits for it
    resume = other.send("resume")
    second_pause = one.send("pause")
    closed = take(call, [*begin, first_pause, resume, second_pause, *other.media(SENTENCE, chunk_ms=100)])
    closed += take(call, other.media(quiet(3), chunk_ms=100))
    assert call.is_paused
    assert closed == []
