"""A call on which the worker fails: it is given up by name, and all other calls come out as without it."""

import msgpack
import pytest
from telephony import EPOCH_MS, STAMPS, Leg, Store, Worker, analyse, facts, in_time, log_of, quiet, voice

from callmood.schemas.call import Call as Call1
from callmood.worker.call.call import Call
from callmood.worker.call.checkpoint import STATE_VERSION
from callmood.worker.call.fold import Fold
from callmood.worker.errors import ConfigurationError
from callmood.worker.partition import carried
from callmood.worker.partition.ended import Ended

pytestmark = pytest.mark.plain_python

SENTENCE = quiet(0.6) + voice(1) + quiet(1)


def calls_of(good_s=20):
    """A good call that goes on, and an odd one whose gateway falls silent and comes back."""
    good, odd = Leg("good"), Leg("odd")
    early = odd.media(SENTENCE + voice(0.5))
    odd.skip(10_000)
    return in_time(good.media(SENTENCE * 3 + quiet(good_s)), early + odd.media(SENTENCE))


def failing(method, *, of="odd"):
    """The method, which fails on one call."""

    def fail(call, *arguments, **named):
        if call.id == of:
            raise ZeroDivisionError("what was said")
        return method(call, *arguments, **named)

    return fail


def fail_at(monkeypatch, place):
    """Let the worker fail on the odd call at this place."""
    if place == "render":
        render = carried.utterance_record

        def fail_to_render(result, *arguments):
            assert result.utterance.call_id != "odd"
            return render(result, *arguments)

        monkeypatch.setattr(carried, "utterance_record", fail_to_render)
    else:
        monkeypatch.setattr(Call, place, failing(getattr(Call, place)))


PLACES = ["stall", "due", "render"]


@pytest.mark.parametrize("place", PLACES)
def test_a_call_on_which_the_worker_fails_is_given_up_alone(monkeypatch, place):
    """A dead-letter record without a value names it, its later records are counted, and nothing stays open."""
    sent = calls_of()
    log = log_of(sent)
    alone = analyse([item for item in sent if item.call_id == "good"])
    fail_at(monkeypatch, place)
    worker, letters = Worker(), []
    for record in log:
        worker.read([record])
        worker.answer()
        commit = worker.partition.collect(STAMPS, 0.0)
        letters += commit.dead_letters
        worker.store.apply(commit)
        worker.partition.confirm(commit)
    (letter,) = letters
    assert (letter.record.key, letter.record.value, letter.reason) == (b"odd", None, "worker_error")
    assert letter.detail.startswith("the call was given up: ")
    assert "test_partition_given_up.py, line" in letter.detail
    assert worker.partition.take_skipped()["given_up"] > 0
    assert worker.store.watermark > len(log) - 40
    found, expected = ({**facts(store, "good")[1]} for store in (worker.store, alone))
    assert found == expected
    assert [u["end_ms"] for u in worker.store.of("good")] == [u["end_ms"] for u in alone.of("good")]


@pytest.mark.parametrize("place", [*PLACES, "summary"])
def test_a_call_that_was_given_up_is_live_no_more(monkeypatch, place):
    """Its last summary says why, and counts what is published of it; if that cannot be made, the rest is committed."""
    log = log_of(calls_of())
    worker = Worker().read(log[:28])
    live, summary = worker.commit().calls["odd"], Fold.summary

    def fail(fold, *arguments):
        assert fold.folded.aggregate.call_id != "odd"
        return summary(fold, *arguments)

    if place == "summary":
        monkeypatch.setattr(Fold, "summary", fail)
    fail_at(monkeypatch, "due" if place == "summary" else place)
    worker.read(log[28:60]).commit()
    store = worker.commit()
    last = store.calls["odd"]
    assert (live["status"], live["utterances"]) == ("live", 1)
    assert store.watermark > 50
    if place == "summary":
        assert last == live
    else:
        assert Call1.model_validate(last).status == "failed"
        assert (last["end_reason"], last["utterances"]) == ("given_up", len(store.of("odd")))
        assert last["version"] > live["version"]


def test_the_store_knows_a_call_that_was_given_up(monkeypatch):
    """So it looks whether what is published of the call is still there."""
    commits, apply = [], Store.apply
    monkeypatch.setattr(Store, "apply", lambda store, commit: (commits.append(commit), apply(store, commit)))
    log = log_of(calls_of())
    worker = Worker().read(log[:28])
    worker.commit()
    fail_at(monkeypatch, "due")
    worker.read(log[28:60]).commit()
    worker.commit()
    told = [one for commit in commits for one in commit.calls if one.call_id == "odd" and one.summary]
    assert [(one.summary["status"], one.is_known) for one in told] == [("live", False), ("failed", True)]


def test_a_call_that_had_ended_keeps_that_end(monkeypatch):
    """A call that went on after its end and is given up then is shown as it was when it ended."""
    leg = Leg("odd")
    before = in_time(leg.media(SENTENCE), Leg("good").media(quiet(620), 1000))
    leg.skip(620_000)
    log = log_of([*before, *leg.media(SENTENCE)])
    worker = Worker().read(log[: len(before)])
    ended = worker.commit().calls["odd"]
    fail_at(monkeypatch, "due")
    store = worker.read(log[len(before) :]).commit()
    assert list(store.dead.values()) == ["worker_error"]
    assert (store.calls["odd"], ended["end_reason"]) == (ended, "idle")


@pytest.mark.parametrize("place", PLACES)
def test_a_call_that_was_given_up_stays_so_after_a_takeover(monkeypatch, place):
    """The next owner neither starts it again under its id nor reports it twice, also long after the end of others."""
    log = log_of(calls_of(good_s=700))
    with monkeypatch.context() as patched:
        fail_at(patched, place)
        store = Worker().read(log).commit()
    before = store.calls.get("odd")
    again = Worker(store).read(record for record in log if record.position.offset >= store.watermark)
    late = Leg("odd", start_ms=EPOCH_MS + 705_000)
    again.read(log_of(late.media(SENTENCE), first_offset=len(log)))
    store = again.commit()
    assert list(store.dead.values()) == ["worker_error"]
    assert store.calls.get("odd") == before
    assert again.partition.take_skipped()["given_up"] > 0


def test_a_pause_on_which_the_worker_fails_hides_what_follows(monkeypatch):
    """A refused `pause` that its call cannot take: no value of its later records is on the dead-letter topic."""
    monkeypatch.setattr(Call, "pause", failing(Call.pause))
    leg = Leg("odd")
    sent = [*leg.media(SENTENCE), leg.send("pause", seq="x"), leg.send("media", voice(0.2), seq="x")]
    worker = Worker().read(log_of(sent))
    letters = worker.partition.collect(STAMPS, 0.0).dead_letters
    assert [(letter.reason.value, letter.record.value) for letter in letters] == [
        ("worker_error", None),
        ("bad_header", None),
        ("bad_header", None),
    ]
    assert worker.commit().watermark == len(sent)


def test_answers_for_a_call_that_was_given_up_are_ignored(monkeypatch):
    """The model may still be busy with it."""
    worker = Worker().read(log_of(calls_of()[:28]))
    assert {utterance.call_id for utterance in worker.waiting} == {"good", "odd"}
    monkeypatch.setattr(Call, "due", failing(Call.due))
    worker.commit_answered()
    worker.commit()
    assert {utterance["call_id"] for utterance in worker.store.utterances} == {"good"}


def test_what_was_collected_of_a_call_before_it_is_given_up_is_confirmed(monkeypatch):
    """The store answers late: the earlier commit is confirmed, and the next one says that the call was given up."""
    log = log_of(calls_of())
    worker = Worker().read(log[:28])
    worker.answer()
    commit = worker.partition.collect(STAMPS, 0.0)
    monkeypatch.setattr(Call, "stall", failing(Call.stall))
    worker.read(log[28:])
    worker.store.apply(commit)
    worker.partition.confirm(commit)
    store = worker.commit()
    assert list(store.dead.values()) == ["worker_error"]
    assert store.of("odd")
    assert store.watermark > len(log) - 40


def test_the_whole_of_the_states_has_a_call_that_was_given_up_once(monkeypatch):
    """Also when the store asks for all states in the same commit."""
    worker = Worker().read(log_of(calls_of()[:28]))
    monkeypatch.setattr(Call, "due", failing(Call.due))
    worker.answer()
    worker.partition.restore_store([], all_states=True)
    assert sorted(call.call_id for call in worker.partition.collect(STAMPS, 0.0).calls) == ["good", "odd"]


def test_a_fault_in_the_rules_over_an_aggregate_costs_the_call(monkeypatch):
    """One level deeper: what a fold raises is found when the results are released."""
    add = Fold.add

    def fail(fold, result):
        assert result.utterance.call_id != "odd"
        return add(fold, result)

    monkeypatch.setattr(Fold, "add", fail)
    store = analyse(calls_of())
    assert list(store.dead.values()) == ["worker_error"]
    assert len(store.of("good")) == 3


@pytest.mark.parametrize(
    "blob",
    [
        b"",
        b"\xc1",
        b"junk",
        msgpack.packb(7),
        msgpack.packb({}),
        msgpack.packb({"ended": [None, None, None]}),
        msgpack.packb({"v": STATE_VERSION, "call": [1, 2, 3]}),
        "cut",
    ],
    ids=repr,
)
def test_a_state_that_cannot_be_read_costs_its_call_the_state(blob):
    """Its call starts again, as if the store had lost it; the others continue, and the store forgets it."""
    log = log_of(calls_of())
    store = Worker().read(log[:28]).commit()
    whole = store.states["odd"]
    store.states |= {"odd": whole[:-9] if blob == "cut" else blob, "gone": b"\x00"}
    worker = Worker(store)
    assert worker.partition.unreadable_states == 2
    worker.read(record for record in log if record.position.offset >= store.watermark)
    store = worker.commit()
    assert store.states.keys() == {"good", "odd"}
    assert store.calls["odd"]["utterances"] > 0
    assert Worker(store).partition.unreadable_states == 0


def test_a_call_without_a_readable_state_that_is_given_up_stays_so(monkeypatch):
    """That its state is deleted concerns the state of before, not the end of the call."""
    log = log_of(calls_of())
    store = Worker().read(log[:28]).commit()
    store.states["odd"] = b"junk"
    fail_at(monkeypatch, "stall")
    worker = Worker(store).read(record for record in log if record.position.offset >= store.watermark)
    assert Ended.unpack(worker.commit().states["odd"]).was_given_up
    assert worker.partition._ended.was_given_up("odd")


def test_a_state_of_another_version_still_stops_the_worker():
    """That is a rollout, not one odd call: no state may be dropped for it."""
    store = Store(states={"odd": msgpack.packb({"v": 1, "call": []})})
    with pytest.raises(ConfigurationError, match="format 1"):
        Worker(store)


def test_after_an_upgrade_late_records_of_ended_calls_are_late():
    """A call that the version before has ended starts no new call, stops nothing and is not lost."""
    leg = Leg()
    log = log_of([*leg.media(SENTENCE), leg.send("end"), *leg.media(SENTENCE)])
    ended = msgpack.packb({"ended": [len(log) // 2, 5_000, False, b"\x81\xa1v\x02", [90_000, EPOCH_MS], False]})
    worker = Worker(Store(states={"call-1": ended})).read(log)
    assert worker.partition.unreadable_states == 0
    assert worker.commit().calls == {}
    assert worker.partition.take_skipped()["late"] == len(log)
