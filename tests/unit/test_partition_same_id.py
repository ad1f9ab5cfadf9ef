"""Two calls with one id on a partition: the second begins after the memory time of the first."""

import pytest
from telephony import EPOCH_MS, STAMPS, Leg, Store, Worker, facts, in_time, log_of, quiet, voice

from callmood.worker.call.call import Call
from callmood.worker.partition.ended import Ended
from callmood.worker.records import Record
from callmood.worker.settings import Settings

SENTENCE = quiet(0.6) + voice(1) + quiet(1)
BRIEF = Settings(call={"ended_memory_s": 1})


def test_a_call_whose_id_was_used_before_starts_empty():
    """After its memory time an id is free: the first commit of the new call tells the store to drop the old results."""
    old, clock, again = Leg(), Leg("clock"), Leg(start_ms=EPOCH_MS + 10_000)
    worker = Worker(configured=BRIEF).read(log_of([*old.media(SENTENCE), old.send("end")]))
    worker.commit()
    worker.read(log_of([*clock.media(quiet(10)), clock.send("end")], first_offset=worker.partition.position))
    worker.commit()
    worker.read(log_of(again.media(SENTENCE), first_offset=worker.partition.position))
    worker.answer()
    updates = {call.call_id: call for call in worker.partition.collect(STAMPS, 0.0).calls}
    assert updates["call-1"].is_first


def reused_id(*last: str) -> list[Record]:
    """A call with an `end`, late audio, and seconds later another one with its id; a second call goes on all along.

    The other call speaks first, so that its missing answer keeps the watermark before the end of the first call.
    `last` are the first call's events before its `end`; audio follows each.
    """
    first, other, again = Leg(start_ms=EPOCH_MS + 100), Leg("other"), Leg(start_ms=EPOCH_MS + 6_000)
    sent = [first.send("start"), *first.media(SENTENCE)]
    for event in (*last, "end"):
        sent += [first.send(event), *first.media(quiet(0.4))]
    sent_again = [again.send("start"), *again.media(quiet(1) + SENTENCE), again.send("end"), *again.media(quiet(0.4))]
    return log_of(in_time(other.media(SENTENCE + quiet(10)), sent, sent_again))


def begins(log: list[Record]) -> int:
    """The offset at which the second call begins."""
    return max(record.position.offset for record in log if ("event", b"start") in record.headers)


def follow(worker: Worker, records: list[Record]) -> Worker:
    """Take records and commit after each; only call-1 gets answers."""
    for record in records:
        worker.read([record])
        worker.answer([utterance for utterance in worker.waiting if utterance.call_id == "call-1"])
        worker.commit_answered()
    return worker


def succeed(store: Store, log: list[Record]) -> Store:
    """The next owner reads the rest of the log, and all answers come."""
    return follow(Worker(store, BRIEF), log[store.watermark :]).commit()


def steady(log: list[Record]) -> Store:
    """What one owner makes of it to whom all answers come at once."""
    worker = Worker(configured=BRIEF)
    for record in log:
        worker.read([record]).commit()
    return worker.store


@pytest.mark.parametrize("killed_after", range(len(reused_id()) + 1))
def test_the_second_call_begins_though_the_first_may_be_read_again(killed_after):
    """And wherever the worker is killed, its successor takes no record of the first for one of the second."""
    log = reused_id()
    store = follow(Worker(configured=BRIEF), log[:killed_after]).store
    assert store.watermark < log.index(next(record for record in log if ("event", b"end") in record.headers))
    expected, found = steady(log), succeed(store, log)
    assert found.calls["call-1"]["started_at_ms"] == EPOCH_MS + 6_000
    for call_id in ("call-1", "other"):
        assert facts(found, call_id) == facts(expected, call_id)
    assert found.dead == expected.dead == {}


def test_a_backlog_is_read_as_its_records_came():
    """All records in one poll, before any answer: those past the memory time wait until the end is stored."""
    log = reused_id()
    worker = Worker(configured=BRIEF).read(log)
    assert worker.partition.is_waiting
    found, expected = worker.commit(), steady(log)
    assert not worker.partition.is_waiting
    for call_id in ("call-1", "other"):
        assert facts(found, call_id) == facts(expected, call_id)
    assert found.dead == expected.dead == {}
    assert worker.partition.position == len(log)


def test_records_that_cannot_be_read_are_skipped_after_those_that_wait():
    """The order on the partition stays."""
    log = reused_id()
    worker = Worker(configured=BRIEF).read(log[:-5])
    worker.partition.skip_to(len(log) - 3)
    worker.read(log[-3:])
    assert facts(worker.commit()) == facts(steady(log[:-5] + log[-3:]))
    assert worker.partition.position == len(log)


def test_the_end_of_the_first_is_stored_again_while_the_second_has_no_state():
    """The store loses all states before the first answer for the second call, and the worker is killed."""
    log = reused_id()
    worker = follow(Worker(configured=BRIEF), log[: begins(log)])
    for record in log[begins(log) :]:
        if not any(utterance.call_id == "call-1" for utterance in worker.waiting):
            worker.read([record])
    worker.store.states.clear()
    worker.partition.restore_store((), all_states=True)
    assert facts(succeed(worker.commit_answered(), log)) == facts(steady(log))


def test_a_record_of_the_first_that_fails_when_it_is_read_again_may_be_of_its_pause():
    """That the first call was paused is known no more, so no dead-letter record holds audio of it."""
    log = reused_id("pause")
    worker = Worker(follow(Worker(configured=BRIEF), log).store, BRIEF)
    decode = worker.partition._decode
    (pause,) = (record.position.offset for record in log if ("event", b"pause") in record.headers)
    failing = next(record for record in log[pause:] if record.key == b"call-1" and record.value)

    def failing_decode(record):
        assert record is not failing
        return decode(record)

    worker.partition._decode = failing_decode
    worker.read(log[worker.store.watermark :])
    (letter,) = worker.partition.collect(STAMPS, 0.0).dead_letters
    assert letter.record.position == failing.position
    assert letter.record.value is None


@pytest.mark.parametrize("before_ms", [2_000, 3_900, 6_000])
@pytest.mark.parametrize("is_lost", [False, True])
def test_a_call_that_was_about_to_go_on_stops_no_successor(before_ms, is_lost):
    """Its next record, just before its time is over, closes an utterance; the answer is missing when the worker ends.

    The successor reads that record again, or cannot, because it is lost.
    """
    settings = Settings(call={"idle_s": 20, "ended_memory_s": 30, "resume_s": 30})
    first, clock = Leg(), Leg("clock")
    sent = first.media(SENTENCE)
    again = Leg(start_ms=EPOCH_MS)
    again.seq, again.media_ms = first.seq, 52_600 - before_ms
    late = again.send("media", SENTENCE + quiet(1))
    ticks = []
    for _ in range(100):
        ticks.append(clock.send("media", quiet(0.2)))
        clock.skip(800)
    log = log_of(in_time(sent, ticks, [late]))
    at = next(offset for offset, record in enumerate(log) if record.value == late.value)
    worker = Worker(configured=settings)
    for record in log[:at]:
        worker.read([record]).commit()
    for record in log[at : at + 8]:
        worker.read([record]).commit_answered()
    assert Call.restore("call-1", worker.store.states["call-1"], settings, ()).is_over
    successor = Worker(worker.store, settings)
    rest = log[worker.store.watermark :]
    if is_lost:
        successor.partition.skip_to(at + 1)
        rest = log[at + 1 :]
    store = successor.read(rest).commit()
    assert successor.partition.position == len(log)
    assert [u["number"] for u in store.of()] == ([1] if is_lost else [1, 2])
    assert store.calls["call-1"]["end_reason"] == "idle"


@pytest.mark.plain_python
def test_a_second_call_that_is_given_up_before_the_end_of_the_first_is_deleted_stays_so(monkeypatch):
    """The commit that deletes the first call's state confirms nothing about the second."""
    first, clock, again = Leg(), Leg("clock"), Leg(start_ms=EPOCH_MS + 10_000)
    worker = Worker(configured=BRIEF).read(log_of([*first.media(SENTENCE), first.send("end")]))
    worker.commit()
    worker.read(log_of(clock.media(quiet(10)), worker.partition.position)).answer()
    commit = worker.partition.collect(STAMPS, 0.0)
    assert [call.call_id for call in commit.calls if call.state is None] == ["call-1"]
    stall = Call.stall

    def failing_stall(call, *when):
        assert call.id != "call-1"
        return stall(call, *when)

    monkeypatch.setattr(Call, "stall", failing_stall)
    tick = Leg("tick", start_ms=EPOCH_MS + 13_000)
    worker.read(log_of([*again.media(SENTENCE), *tick.media(quiet(8))], worker.partition.position))
    worker.store.apply(commit)
    worker.partition.confirm(commit)
    stored = worker.commit_answered().states["call-1"]
    assert Ended.unpack(stored).was_given_up


@pytest.mark.parametrize("changed", [{}, {"seq": "0"}, {"rate": "16000"}, {"seq": "99999999"}])
def test_what_a_call_refuses_after_the_clock_has_ended_it_starts_none_when_it_is_read_again(changed):
    """A copy, or a record that is refused: the memory time is over, and then the worker is killed."""
    settings = Settings(call={"ended_memory_s": 1, "resume_s": 60, "idle_s": 30})
    sent, other = Leg().media(SENTENCE), Leg("other", start_ms=EPOCH_MS + 2_700)
    late = sent[-1]._replace(at_ms=EPOCH_MS + 45_700, headers=sent[-1].headers | changed)
    log = log_of(in_time(sent, other.media(quiet(38) + SENTENCE + quiet(100), chunk_ms=1000), [late]))
    store = follow(Worker(configured=settings), log).store
    found = facts(store)
    assert found[1]["end_reason"] == "idle"
    assert facts(follow(Worker(store, settings), log[store.watermark :]).commit()) == found
