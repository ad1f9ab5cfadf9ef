"""Two calls with one id on a partition: the second begins after the memory time of the first."""

import pytest
from telephony import EPOCH_MS, STAMPS, Leg, Store, Worker, facts, in_time, log_of, quiet, voice

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


def reused_id() -> list[Record]:
    """A call with an `end`, late audio, and two seconds later another one with its id; a second call goes on all along.

    The other call speaks first, so that its missing answer keeps the watermark before the end of the first call.
    """
    first, other, again = Leg(start_ms=EPOCH_MS + 100), Leg("other"), Leg(start_ms=EPOCH_MS + 6_000)
    sent = [first.send("start"), *first.media(SENTENCE), first.send("end"), *first.media(quiet(0.4))]
    sent_again = [again.send("start"), *again.media(quiet(1) + SENTENCE), again.send("end"), *again.media(quiet(0.4))]
    return log_of(in_time(other.media(SENTENCE + quiet(10)), sent, sent_again))


def live(store: Store, records: list[Record], *, has_answers: bool) -> Store:
    """One life: a commit after each record; the other call gets its answers at the end, or never."""
    worker = Worker(store, BRIEF)
    for record in records:
        worker.read([record])
        worker.answer([utterance for utterance in worker.waiting if utterance.call_id == "call-1"])
        worker.commit_answered()
    return worker.commit() if has_answers else store


@pytest.mark.parametrize("killed_after", range(len(reused_id()) + 1))
def test_the_second_call_begins_though_the_first_may_be_read_again(killed_after):
    """And wherever the worker is killed, its successor takes no record of the first for one of the second."""
    log, steady = reused_id(), Worker(configured=BRIEF)
    for record in log:
        steady.read([record]).commit()
    store = live(Store(), log[:killed_after], has_answers=False)
    assert store.watermark < 15
    live(store, [record for record in log if record.position.offset >= store.watermark], has_answers=True)
    assert store.calls["call-1"]["started_at_ms"] == EPOCH_MS + 6_000
    for call_id in ("call-1", "other"):
        assert facts(store, call_id) == facts(steady.store, call_id)
    assert store.dead == steady.store.dead == {}
