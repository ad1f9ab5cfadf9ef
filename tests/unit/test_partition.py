"""One partition: what is dead-lettered, what is skipped, what is committed, and when calls end."""

from dataclasses import replace

import pytest
from telephony import EPOCH_MS, SOURCE, STAMPS, Leg, Store, Worker, analyse, facts, in_time, log_of, quiet, voice

from callmood.worker.call.call import Call
from callmood.worker.commits import Commit
from callmood.worker.errors import TooManyBadRecords
from callmood.worker.settings import Settings
from callmood.worker.speech.stream import Stream

SENTENCE = quiet(0.6) + voice(1) + quiet(1)


def bad(sent, **headers):
    """The record with something wrong in its headers."""
    return sent._replace(headers={**sent.headers, **(headers or {"seq": "x"})})


def test_a_bad_record_is_dead_lettered_and_its_call_goes_on():
    """The letter holds the record as it came and why; the audio around it is heard, with a gap."""
    sent = Leg().media(SENTENCE + quiet(1), chunk_ms=100)
    store = analyse([*sent[:10], bad(sent[10]), *sent[11:]])
    assert store.dead == {10: "bad_header"}
    assert [u["quality"]["missing_ms"] for u in store.of()] == [100]


def test_a_bad_record_holds_the_watermark_until_its_letter_is_collected():
    """A letter that was not sent is read again, and sent then."""
    worker = Worker().read(log_of([bad(Leg().send("start"))]))
    assert worker.partition.open_records == 1
    assert worker.commit().watermark == 1
    assert worker.partition.open_records == 0


def test_a_bad_record_of_a_paused_call_goes_without_its_value():
    """What is said in a pause does not end up on the dead-letter topic either."""
    leg = Leg()
    sent = [*leg.media(quiet(0.2)), leg.send("pause"), bad(leg.send("media", voice(0.2)))]
    worker = Worker().read(log_of(sent))
    (letter,) = worker.partition._letters.collect()
    assert letter.record.value is None
    assert letter.record.key == b"call-1"


def test_a_bad_record_without_a_key_goes_without_its_value_while_any_call_is_paused():
    """Whose it is cannot be told: it may be the paused call's."""
    leg = Leg()
    *known, spoken = log_of([*leg.media(quiet(0.2)), leg.send("pause"), leg.send("media", voice(0.2))])
    worker = Worker().read([*known, replace(spoken, key=None)])
    (letter,) = worker.partition._letters.collect()
    assert letter.reason == "no_key"
    assert letter.record.value is None


def test_unreadable_records_stop_nothing_unless_a_limit_is_set():
    """Thousands in a row are as many dead-letter records, and the calls beside them come out as without them."""
    legs = Leg("good"), Leg("bad")
    good, rest = (leg.media(voice(10), chunk_ms=20) for leg in legs)
    log = log_of([item for pair in zip(good, [bad(item) for item in rest], strict=True) for item in pair])
    store = Worker().read(log).commit()
    assert len(store.dead) == len(rest)
    alone = Worker().read(log_of(good)).commit()
    assert store.calls["good"]["duration_ms"] == alone.calls["good"]["duration_ms"]


def test_a_record_on_which_decoding_fails_is_a_dead_letter_record():
    """A fault of ours in reading a record costs that record, not the partition."""
    worker = Worker()

    def fail(record):
        raise ZeroDivisionError(record.position)

    good = Leg().media(quiet(0.4), chunk_ms=200)
    reader, worker.partition._decode = worker.partition._decode, fail
    worker.read(log_of(good[:1]))
    worker.partition._decode = reader
    store = worker.read(log_of(good[1:], first_offset=1)).commit()
    assert list(store.dead.values()) == ["worker_error"]
    assert store.watermark == 1


def test_too_many_unreadable_records_in_a_row_stop_the_worker():
    """A deployment that sends something else is not worked off as bad data."""
    worker = Worker(configured=Settings(input={"max_consecutive_bad": 20}))
    good, *rest = Leg().media(voice(10), chunk_ms=200)
    worker.read(log_of([bad(item) for item in rest[:20]]))
    worker.read(log_of([good], first_offset=100))
    worker.read(log_of([bad(item) for item in rest[:20]], first_offset=200))
    with pytest.raises(TooManyBadRecords, match="21 bad records in a row on audio/0"):
        worker.read(log_of([bad(rest[0])], first_offset=300))


def test_a_call_whose_codec_changes_does_not_stop_the_worker():
    """Readable records that do not fit their own call are that call's matter, however many."""
    first, *rest = Leg().media(voice(10), chunk_ms=200)
    worker = Worker(configured=Settings(input={"max_consecutive_bad": 20}))
    store = worker.read(log_of([first, *(bad(item, encoding="pcma") for item in rest)])).commit()
    assert set(store.dead.values()) == {"format_changed"}
    assert len(store.dead) == len(rest) > 20


def test_duplicates_and_late_records_are_counted_and_settled():
    """Neither holds the watermark, and both are told about once."""
    leg = Leg()
    sent = leg.media(quiet(0.6))
    log = [*sent, sent[0], leg.send("end"), *leg.media(quiet(0.4))]
    worker = Worker().read(log_of(log))
    assert worker.partition.take_skipped() == {"late": 2, "duplicate": 1, "given_up": 0}
    assert worker.partition.take_skipped() == {"late": 0, "duplicate": 0, "given_up": 0}
    assert worker.commit().watermark == len(log)


@pytest.mark.parametrize("has_answers", [False, True])
def test_a_call_id_used_again_at_once_is_dead_lettered(has_answers):
    """Whether or not the ended call still waits for the model, a new start under its id is seen by a person."""
    leg = Leg()
    worker = Worker().read(log_of([*leg.media(quiet(0.6) + voice(1)), leg.send("end")]))
    if has_answers:
        worker.commit()
    worker.read(log_of([Leg(start_ms=EPOCH_MS + 3_000).send("start")], first_offset=50))
    store = worker.commit()
    assert store.dead == {50: "call_ended"}
    assert store.calls["call-1"]["utterances"] == 1


def test_late_records_of_an_unanswered_call_do_not_start_it_again():
    """A successor that reads late records again knows that they were late."""
    leg = Leg()
    log = log_of([*leg.media(quiet(0.6) + voice(1)), leg.send("end"), *leg.media(quiet(1))])
    store = Worker().read(log).commit()
    assert store.states.keys() == {"call-1"}
    again = Worker(Store(watermark=10, time=store.time, states=store.states)).read(log[10:])
    assert again.partition.live_calls == 0


def test_an_idle_partition_has_no_news():
    """A commit without news holds the committed watermark and its clock, and nothing else."""
    worker = Worker().read(log_of(Leg().media(quiet(1))))
    store = worker.commit()
    assert store.watermark > 0
    assert worker.partition.collect(STAMPS, 0.0) == Commit(SOURCE, store.watermark, store.time, is_news=False)


def test_a_commit_that_was_dropped_is_collected_again():
    """Until a commit is confirmed, nothing of it counts as done: results, first summary, dead letters, watermark."""
    leg = Leg()
    worker = Worker().read(log_of([*leg.media(SENTENCE), bad(leg.send("start"))]))
    worker.answer()
    dropped = worker.partition.collect(STAMPS, 0.0)
    worker.read(log_of([*leg.media(SENTENCE), leg.send("end")], first_offset=14))
    worker.answer()
    commit = worker.partition.collect(STAMPS, 0.0)
    with pytest.raises(ValueError, match="collected last"):
        worker.partition.confirm(dropped)
    commit = worker.partition.collect(STAMPS, 0.0)
    assert (commit.utterances[0], commit.dead_letters) == (dropped.utterances[0], dropped.dead_letters)
    assert [update.is_first for update in (*dropped.calls, *commit.calls)] == [True, True]
    assert (len(dropped.utterances), len(commit.utterances), commit.watermark) == (1, 2, worker.partition.position)
    worker.partition.confirm(commit)
    assert worker.partition.live_calls == 0
    assert worker.partition.open_records == 0
    assert not worker.partition.collect(STAMPS, 0.0).is_news


def test_records_that_come_before_a_commit_is_confirmed_stay_due():
    """Confirming a commit settles what it carried and nothing that was taken since."""
    leg = Leg()
    worker = Worker().read(log_of(leg.media(SENTENCE)))
    worker.answer()
    commit = worker.partition.collect(STAMPS, 0.0)
    worker.read(log_of([bad(leg.send("start")), *leg.media(SENTENCE)], first_offset=13))
    worker.partition.confirm(commit)
    assert worker.partition.open_records > 13
    store = worker.commit()
    assert (len(store.of()), store.dead) == (1, {13: "bad_header"})


def test_a_new_call_is_visible_with_its_first_record():
    """A dashboard shows a call before anything was said in it, and once only as its first."""
    worker = Worker().read(log_of([Leg().send("start", **{"attr.queue": "sales"})]))
    assert worker.commit().calls["call-1"]["attributes"] == {"queue": "sales"}


def test_nothing_of_a_call_is_visible_before_its_state_can_be_stored():
    """A successor that knows nothing of the call would publish the same version of it again."""
    worker = Worker().read(log_of(Leg().media(SENTENCE, chunk_ms=5_000)))
    store = worker.commit_answered()
    assert (store.calls, store.states, len(worker.waiting)) == ({}, {}, 1)
    worker.commit()
    assert store.calls.keys() == store.states.keys() == {"call-1"}
    assert store.calls["call-1"]["utterances"] == 1


def test_a_call_in_which_nobody_records_anything_ends_idle():
    """Without its end, a call is over when its partition has observed the idle time without a record of it."""
    lost, other = Leg(), Leg("other", start_ms=EPOCH_MS)
    sent = in_time(lost.media(SENTENCE), other.media(quiet(615), chunk_ms=1_000))
    store = analyse(sent)
    assert (store.calls["call-1"]["status"], store.calls["call-1"]["end_reason"]) == ("completed", "idle")
    assert store.calls["call-1"]["duration_ms"] == 2_600
    assert store.calls["other"]["status"] == "live"
    early = analyse([item for item in sent if item.at_ms < EPOCH_MS + 595_000])
    assert early.calls["call-1"]["status"] == "live"


def test_a_night_without_records_ends_no_call():
    """Time in which the partition was silent is not time in which the call was."""
    leg = Leg()
    sent = leg.media(SENTENCE)
    leg.skip(12 * 3_600_000)
    assert analyse(sent + leg.media(quiet(1))).calls["call-1"]["status"] == "live"


def test_the_state_is_saved_though_nothing_is_said():
    """Records of a silent call are settled every four seconds of its partition's time."""
    worker, lags = Worker(), []
    for record in log_of(Leg().media(quiet(60), chunk_ms=100)):
        worker.read([record])
        lags.append(worker.partition.position - worker.commit().watermark)
    assert max(lags) <= 44
    assert worker.partition.oldest_capture_ms >= EPOCH_MS + 55_000


@pytest.mark.plain_python
@pytest.mark.parametrize("records", [1, 4])
def test_a_record_on_which_its_call_fails_is_a_dead_letter_record(monkeypatch, records):
    """A fault of ours costs the record, and those taken with it; its call and the others go on, nothing stays open.

    They can be read, so they are no run of bad records.
    """
    sent = in_time(Leg("good").media(SENTENCE, chunk_ms=200), Leg("odd").media(SENTENCE, chunk_ms=200))
    log, take = log_of(sent), Stream.take_next

    def fail_once(stream, chunks):
        taken = take(stream, chunks)
        if any(chunk.position.offset == 7 for chunk in chunks):
            raise ZeroDivisionError("what was said")
        return taken

    monkeypatch.setattr(Stream, "take_next", fail_once)
    worker = Worker(configured=Settings(input={"max_consecutive_bad": 1}))
    for number in range(0, len(log), records):
        worker.read(log[number : number + records])
    letters = worker.partition._letters.collect()
    assert {letter.record.position.offset for letter in letters} == {7, 9}
    assert {letter.reason for letter in letters} == {"worker_error"}
    letter = letters[0]
    assert letter.detail.startswith("ZeroDivisionError in test_partition.py, line ")
    store = worker.commit()
    monkeypatch.undo()
    assert facts(store, "good") == facts(analyse(sent), "good")
    assert store.calls["odd"]["status"] == "live"


@pytest.mark.plain_python
@pytest.mark.parametrize("is_read", [False, True])
def test_a_record_that_fails_only_for_the_next_owner_is_a_dead_letter_record(monkeypatch, is_read):
    """Though states of later records are stored: the owner before it could take the record, so nothing was reported."""
    speaking, over = Leg("speaking"), Leg("over")
    sent = in_time(speaking.media(quiet(0.4) + voice(4)), [*over.media(SENTENCE), over.send("end")])
    log = log_of(sent)
    store = Worker().read(log).commit()
    again, at = Worker(store), store.watermark
    assert sent[at].call_id == "speaking"
    assert at < again.partition._ended.last_offset
    decode, take = again.partition._decode, Call.take

    def fail_to_read(record):
        return decode(replace(record, headers=None) if record.position.offset == at else record)

    def fail_to_take(call, chunk, **times):
        assert chunk.position.offset != at
        return take(call, chunk, **times)

    if is_read:
        monkeypatch.setattr(Call, "take", fail_to_take)
    else:
        monkeypatch.setattr(again.partition, "_decode", fail_to_read)
    assert again.read(log[at:]).commit().dead == {at: "worker_error"}


def test_the_clock_of_a_record_without_a_timestamp_is_the_partition_s():
    """It is dead-lettered, and the age of the oldest audio stays what it was."""
    good = Leg().media(quiet(0.4), chunk_ms=200)
    first, second = log_of(good)
    worker = Worker().read([first, replace(second, timestamp_ms=-1)])
    assert worker.partition.oldest_capture_ms == first.timestamp_ms
    assert worker.commit().dead == {1: "bad_header"}


def test_all_states_are_stored_again_on_request():
    """Live calls without anything new and ended calls are in the next commit, and only in that one."""
    gone, quiet_call = Leg("ended"), Leg("quiet")
    sent = [*gone.media(quiet(0.4)), gone.send("end"), *quiet_call.media(quiet(0.4))]
    worker = Worker().read(log_of(sent))
    worker.commit()
    assert not worker.partition.collect(STAMPS, 0.0).is_news
    worker.partition.restore_store([], all_states=True)
    commit = worker.partition.collect(STAMPS, 0.0)
    assert commit.is_news
    assert commit.is_whole
    states = {call.call_id: call.state for call in commit.calls}
    assert states.keys() == {"ended", "quiet"}
    assert states["ended"] == worker.store.states["ended"]
    worker.store.apply(commit)
    worker.partition.confirm(commit)
    assert not worker.partition.collect(STAMPS, 0.0).is_news


def test_an_aggregate_is_published_again_on_request():
    """Though nothing of it has changed, and as that of a known call: its utterances stay."""
    worker = Worker().read(log_of(Leg().media(SENTENCE)))
    before = worker.commit().calls["call-1"]
    worker.partition.restore_store(["call-1", "call-2"], all_states=False)
    (call,) = worker.partition.collect(STAMPS, 0.0).calls
    assert (call.summary, call.is_first, call.is_known) == (before, False, True)


def test_a_record_after_the_end_is_remembered_before_the_end_is_stored():
    """Or a replay that reaches it would start the call again."""
    leg = Leg()
    worker = Worker().read(log_of([*leg.media(SENTENCE), leg.send("end"), *leg.media(quiet(0.2))]))
    late = worker.partition.position - 1
    worker.commit()
    assert worker.partition._ended.last_offset == late


def test_a_takeover_after_a_gap_and_a_little_silence_changes_nothing():
    """Wherever it happens: the next owner begins right after both, and hears the same samples at the same place."""
    leg = Leg()
    sent = leg.media(quiet(0.8) + voice(1.2), chunk_ms=400)
    leg.lose(800, record_ms=400)  # too long to be concealed
    leg.skip(8)  # too short to be silence, if it came alone
    log = log_of([*sent, *leg.media(voice(6) + quiet(1.2), chunk_ms=400), leg.send("end")])
    whole = facts(Worker().read(log).commit())
    for first in range(1, len(log)):
        store = Worker().read(log[:first]).commit()
        again = Worker(store).read(record for record in log if record.position.offset >= store.watermark)
        assert facts(again.commit()) == whole


def test_an_end_that_is_past_is_not_stored_again_with_all_states():
    """The commit that deletes its state would bring it back."""
    leg, other = Leg(), Leg("other")
    worker = Worker().read(log_of([*leg.media(quiet(1)), leg.send("end")]))
    assert "call-1" in worker.commit().states
    worker.read(log_of(other.media(quiet(620), chunk_ms=1_000), first_offset=100))
    worker.partition.restore_store((), all_states=True)
    assert worker.commit().states.keys() == {"other"}
