"""The ingest loop around a store that comes and goes."""

from collections import deque
from dataclasses import replace
from itertools import count
from types import SimpleNamespace

import pytest
from loops import UNREADABLE, new_store, wired
from telephony import EPOCH_MS, Leg, log_of, quiet, voice

from callmood.bench import null_servers
from callmood.worker import metrics
from callmood.worker.adapters.kafka_batches import Skipped
from callmood.worker.adapters.store import Committed, Gone
from callmood.worker.commits import Restored
from callmood.worker.errors import ConfigurationError, Fenced, StoreUnavailable, TooManyBadRecords, Unsettled
from callmood.worker.partition.partition import Partition
from callmood.worker.records import Position
from callmood.worker.run import traces
from callmood.worker.settings import Settings
from callmood.worker.stream_time import StreamTime


@pytest.fixture
def loop():
    """An ingest loop, its store, and the dead-letter records it has sent; a look at a clock takes half a second."""
    store, sent, halves = new_store(), [], count()
    ingest = wired(store, lambda: next(halves) / 2, lambda: next(halves) / 2, sent=sent)
    return SimpleNamespace(ingest=ingest, store=store, sent=sent)


def test_a_dead_letter_record_is_sent_once_however_often_its_commit_is_repeated(loop):
    """A store that is silent for long does not fill the dead-letter topic with copies."""
    loop.store.is_down = True
    for _ in range(50):
        loop.ingest.turn()
    assert len(loop.sent) == 1
    loop.store.is_down = False
    for _ in range(50):
        loop.ingest.turn()
    assert len(loop.sent) == 1
    assert sum(len(commit.dead_letters) for commit in loop.store.committed) == 1


def test_a_turn_waits_until_the_next_commit():
    """It is short while partitions are taken over, ends when a commit is due, and is long once nothing is."""
    store, now_s = new_store(), [0.0]
    ingest, consumer = wired(store, lambda: 0.0, lambda: now_s[0]), store.consumer
    for at_s in (0.0, 0.0, 0.0, 0.25, 0.35, 0.495, 0.51, 0.52):
        now_s[0] = at_s
        ingest.turn()
    assert consumer.waits_ms == [10, 10, 10, 10, 150, 10, 10, 1_000]
    ingest._waiting = {"asked": SimpleNamespace(audio_bytes=0)}  # its answer is committed without delay
    ingest.turn()
    assert 10 <= consumer.waits_ms[-1] <= 250


SENTENCE = quiet(0.6) + voice(1) + quiet(1)


def reused_id(said=SENTENCE):
    """A call, another one for fifteen minutes, and a call with the id of the first, in which this is said."""
    first, other, again = Leg(), Leg("other"), Leg(start_ms=EPOCH_MS + 900_000)
    sent = [*first.media(SENTENCE), first.send("end")]
    for _ in range(225):
        sent.append(other.send("media", quiet(0.02)))
        other.skip(4_000)
    return log_of([*sent, again.send("start"), *again.media(said), again.send("end")])


def test_a_backlog_waits_until_the_end_of_a_call_is_stored(loop, monkeypatch):
    """Reading is paused until then, and goes on by itself: the next call with the id loses nothing."""
    consumer, pauses = loop.store.consumer, []
    consumer.unread = {consumer.sources[0]: reused_id()}
    monkeypatch.setattr(consumer, "pause", lambda *_: pauses.append("pause"))
    monkeypatch.setattr(consumer, "resume", lambda *_: pauses.append("resume"))
    monkeypatch.setattr(loop.ingest, "_inference", null_servers.Model())
    for _ in range(50):
        loop.ingest.turn()
    said = [(u["call_id"], u["number"]) for commit in loop.store.committed for u in commit.utterances]
    assert said == [("call-1", 1), ("call-1", 1)]
    assert pauses[:2] == ["pause", "resume"]
    assert not loop.sent


@pytest.mark.parametrize("said", [SENTENCE, quiet(1)])
def test_what_waits_is_not_lost_when_the_topic_is_created_again(loop, monkeypatch, said):
    """Nothing of the old topic can be read again, so its last records are committed before the process ends."""
    consumer = loop.store.consumer
    consumer.unread = {consumer.sources[0]: reused_id(said)}
    monkeypatch.setattr(loop.ingest, "_inference", null_servers.Model())
    while not loop.ingest._held_sources:
        loop.ingest.turn()

    def poll(_timeout_ms):
        raise ConfigurationError("the topic was created again")

    monkeypatch.setattr(consumer, "poll", poll)
    with pytest.raises(ConfigurationError):
        loop.ingest.turn()
    last = [call.summary for commit in loop.store.committed for call in commit.calls if call.summary][-1]
    assert (last["call_id"], last["status"], last["started_at_ms"]) == ("call-1", "completed", EPOCH_MS + 900_000)
    assert last["utterances"] == (said == SENTENCE)


@pytest.mark.parametrize("can_commit", [True, False])
def test_records_that_wait_for_ever_are_a_standstill(loop, monkeypatch, can_commit):
    """That would be a fault of ours, and no pause may hide it; while the group is joined, no commit can end it."""
    consumer = loop.store.consumer
    consumer.unread = {consumer.sources[0]: reused_id()}
    monkeypatch.setattr(loop.ingest, "_inference", null_servers.Model())
    loop.ingest.turn()
    monkeypatch.setattr(Partition, "is_waiting", True)
    loop.store.can_commit = can_commit
    for _ in range(500):
        loop.ingest.turn()
    assert (loop.ingest.status().stuck_s > Settings().worker.stall_s) == can_commit


@pytest.mark.parametrize("asked", ["oldest", "start"])
def test_a_partition_without_a_leader_does_not_stop_the_others(loop, asked):
    """The others are taken over and committed; that one is tried again until it answers."""
    consumer, leaderless = loop.store.consumer, loop.store.consumer.sources[0]
    answer = getattr(consumer, asked)

    def silent(source, *more):
        if source == leaderless:
            raise Unsettled("no leader", retry_s=5.0)
        return answer(source, *more)

    setattr(consumer, asked, silent)
    for _ in range(50):
        loop.ingest.turn()
    assert consumer.started == consumer.sources[1:]
    assert {commit.source for commit in loop.store.committed} == set(consumer.sources[1:])
    setattr(consumer, asked, answer)
    for _ in range(50):
        loop.ingest.turn()
    assert {commit.source for commit in loop.store.committed} == set(consumer.sources)


def test_idle_partitions_confirm_together(loop):
    """Taken over one after the other, they notice a new owner in one round trip, five seconds apart."""
    for _ in range(100):
        loop.ingest.turn()
    sources, first = loop.store.consumer.sources, len(loop.store.committed)
    for _ in range(100):
        loop.ingest.turn()
    idle = [commit.source for commit in loop.store.committed[first:]]
    assert len(idle) >= 2 * len(sources)
    assert len(idle) % len(sources) == 0
    for at in range(0, len(idle), len(sources)):
        assert sorted(idle[at : at + len(sources)]) == sorted(sources)


def test_what_is_durable_is_not_sent_again(loop):
    """Where the store answers for some partitions only, the others alone are repeated, as they are."""
    loop.store.silent = {loop.store.consumer.sources[1]}
    for _ in range(50):
        loop.ingest.turn()
    waiting, done = list(loop.ingest._pending), list(loop.store.committed)
    assert [commit.source.partition for commit in waiting] == [1]
    for _ in range(50):
        loop.ingest.turn()
    assert loop.store.committed == done
    loop.store.silent = set()
    while loop.ingest._pending:
        loop.ingest.turn()
    assert loop.store.committed[len(done)] is waiting[0]


def test_spans_begin_with_the_records_however_often_their_commit_is_repeated(loop, monkeypatch):
    """Records that wait for the store were made before the first try, and are durable after the last one."""
    ingest, told, now_s = loop.ingest, [], loop.ingest._clock
    monkeypatch.setattr(traces, "committed", lambda _, rendered_s, durable_s: told.append((rendered_s, durable_s)))
    loop.store.is_down = True
    while not ingest._pending:
        before_s = now_s()
        ingest.turn()
    tried_s = now_s()
    for _ in range(50):
        ingest.turn()
    loop.store.is_down, back_s = False, now_s()
    while ingest._pending:
        ingest.turn()
    ((rendered_s, durable_s),) = told
    assert before_s < rendered_s < tried_s < back_s < durable_s


def test_the_group_is_polled_between_two_restored_partitions(loop):
    """Taking over many partitions takes long, and the group removes a member that does not poll."""
    for _ in range(5):
        loop.ingest.turn()
    assert loop.store.claimed_at_poll == [1, 2, 3]


def test_a_process_that_joins_its_group_only_polls(loop):
    """Neither a commit nor a takeover comes before it knows the partitions that it keeps."""
    loop.store.can_commit = False
    for _ in range(20):
        loop.ingest.turn()
    assert (loop.store.claimed_at_poll, loop.store.committed, loop.ingest.status().restoring) == ([], [], 3)
    loop.store.can_commit = True
    for _ in range(20):
        loop.ingest.turn()
    assert {commit.source for commit in loop.store.committed} == set(loop.store.consumer.sources)
    loop.store.can_commit = False
    for _ in range(200):
        loop.ingest.turn()
    assert "commits" not in loop.ingest.status().stuck_at


def test_a_drain_waits_until_a_commit_is_possible(loop):
    """What was taken from the partitions is not left to their next owner; without partitions nothing is to be done."""
    loop.store.can_commit = False
    assert loop.ingest.drain(1_000_000)
    loop.store.can_commit = True
    for _ in range(3):
        loop.ingest.turn()
    loop.store.can_commit, taken = False, len(loop.store.committed)
    assert not loop.ingest.drain(loop.ingest._monotonic() + 50)
    assert len(loop.store.committed) == taken
    loop.store.can_commit = True
    assert loop.ingest.drain(1_000_000)
    assert len(loop.store.committed) > taken


def test_what_the_client_cannot_parse_is_counted_and_behind_the_watermark(loop):
    """The partition goes on after skipped offsets, its successor too, and each is counted as lost."""
    for _ in range(10):
        loop.ingest.turn()
    lost = metrics.RECORDS_LOST._value.get()
    source = loop.store.consumer.sources[1]
    loop.store.consumer.skipped = [Skipped(source, 0, 7, "a codec is missing")]
    for _ in range(20):
        loop.ingest.turn()
    assert metrics.RECORDS_LOST._value.get() - lost == 7
    assert [commit.watermark for commit in loop.store.committed if commit.source == source][-1] == 7


def test_what_led_to_too_many_bad_records_is_committed_first(loop):
    """The limit stops the worker only after the dead-letter records and the position are in the store."""
    loop.ingest._settings = Settings(input={"max_consecutive_bad": 3})
    source = loop.store.consumer.sources[0]
    loop.store.consumer.unread = {source: [replace(UNREADABLE, position=Position("audio", 0, n)) for n in range(6)]}
    with pytest.raises(TooManyBadRecords):
        deque((loop.ingest.turn() for _ in range(20)), maxlen=0)
    assert len(loop.sent) == 4
    assert [commit.watermark for commit in loop.store.committed if commit.source == source][-1] == 4


@pytest.mark.plain_python
def test_what_the_store_has_lost_is_stored_again(loop):
    """The partition hears of it from the commit that met it."""
    source, asked = loop.store.consumer.sources[0], []
    for _ in range(10):
        loop.ingest.turn()
    partition = loop.ingest._partitions[source]
    partition.restore_store = lambda summaries, *, all_states: asked.append((summaries, all_states))
    commit = loop.store.commit

    def lossy(commits):
        return commit(commits)._replace(gone={source: Gone(True, 0, ("a",))} if not asked else {})

    loop.store.commit = lossy
    for _ in range(20):
        loop.ingest.turn()
    assert asked == [(("a",), True)]


def test_what_was_read_of_a_topic_that_was_created_again_is_committed(loop):
    """Only then does the worker stop, with a code for which no restart helps."""
    for _ in range(3):
        loop.ingest.turn()

    def refuse(_timeout_ms):
        raise ConfigurationError("created again")

    committed, loop.store.consumer.poll = len(loop.store.committed), refuse
    with pytest.raises(ConfigurationError):
        loop.ingest.turn()
    assert loop.sent
    assert len(loop.store.committed) > committed


def test_a_drain_stores_again_what_the_store_has_lost(loop):
    """An idle partition is looked at once more: its successor would not have the states."""
    source, answers = loop.store.consumer.sources[1], [Gone(True, 0, ())]
    for _ in range(10):
        loop.ingest.turn()
    commit, loop.store.committed = loop.store.commit, []

    def lossy(commits):
        is_there = any(one.source == source for one in commits) and answers
        return commit(commits)._replace(gone={source: answers.pop()} if is_there else {})

    loop.store.commit = lossy
    assert loop.ingest.drain(1_000_000.0)
    assert [one.is_whole for one in loop.store.committed if one.source == source] == [False, True]


def test_nothing_is_committed_before_its_dead_letter_records_are_written(loop, monkeypatch):
    """A stop in between would lose them: the watermark is behind their records."""

    def refuse(_letters):
        raise StoreUnavailable("dead-letter topic")

    topic, source = loop.ingest._dead_letters, loop.store.consumer.sources[0]
    monkeypatch.setattr(topic, "send", refuse)
    for _ in range(50):
        loop.ingest.turn()
    assert all(commit.watermark == 0 for commit in loop.store.committed if commit.source == source)
    assert not loop.ingest.status().is_store_healthy
    monkeypatch.undo()
    for _ in range(50):
        loop.ingest.turn()
    assert [commit.watermark for commit in loop.store.committed if commit.source == source][-1] == 1
    assert len(loop.sent) == 1


def test_a_partition_that_was_given_away_is_not_committed(loop):
    """Its next owner repeats what waits for the store; the others are committed."""
    sources, loop.store.is_down = loop.store.consumer.sources, True
    for _ in range(20):
        loop.ingest.turn()
    assert sources[0] in {commit.source for commit in loop.ingest._pending}
    loop.store.consumer.revoked = {sources[0]}
    loop.ingest.turn()
    loop.store.is_down = False
    for _ in range(50):
        loop.ingest.turn()
    assert {commit.source for commit in loop.store.committed} == set(sources[1:])
    assert loop.ingest.status().partitions == 2


def test_a_partition_that_comes_back_is_taken_over_again(loop):
    """Another worker may have had it in between: what this process knew of it is forgotten."""
    for _ in range(10):
        loop.ingest.turn()
    source = loop.store.consumer.sources[1]
    before, claims = loop.ingest._partitions[source], len(loop.store.claimed_at_poll)
    loop.store.consumer.revoked, loop.store.consumer.assigned = {source}, {source}
    for _ in range(10):
        loop.ingest.turn()
    assert len(loop.store.claimed_at_poll) == claims + 1
    assert loop.ingest._partitions[source] is not before


def test_a_partition_of_another_owner_ends_the_process(loop, monkeypatch):
    """What is in memory may be old; the commits of the other partitions count."""
    for _ in range(10):
        loop.ingest.turn()
    monkeypatch.setattr(loop.store, "commit", lambda commits: Committed(tuple(commits[1:]), (commits[0].source,)))
    with pytest.raises(Fenced, match="another worker owns 1 partitions"):
        deque((loop.ingest.turn() for _ in range(50)), maxlen=0)
    assert {commit.source for commit in loop.ingest._pending} == {loop.store.consumer.sources[0]}


def test_a_partition_goes_on_behind_what_retention_has_deleted(loop, monkeypatch):
    """Also if no record comes: the next owner would report the same loss again."""
    monkeypatch.setattr(loop.store, "claim", lambda _: Restored(3, StreamTime(), {}))
    monkeypatch.setattr(loop.store.consumer, "oldest", lambda _: 7)
    loop.store.consumer.unread = {}
    for _ in range(20):
        loop.ingest.turn()
    assert {commit.watermark for commit in loop.store.committed} == {7}


@pytest.mark.parametrize("moves_group_offsets", [False, True])
def test_the_group_is_shown_the_position_unless_the_commit_moves_it(loop, moves_group_offsets):
    """Lag monitors look at it; a transaction has it already."""
    loop.store.moves_group_offsets = moves_group_offsets
    for _ in range(20):
        loop.ingest.turn()
    shown = {source for watermarks in loop.store.consumer.shown for source in watermarks}
    assert shown == (set() if moves_group_offsets else set(loop.store.consumer.sources))
