"""The takeover of a partition: the offset to read from, and the reports."""

from types import SimpleNamespace

import pytest
from kafka.errors import KafkaTimeoutError
from structlog.testing import capture_logs
from telephony import Leg, Worker, in_time, log_of, quiet, voice

from callmood.worker import metrics
from callmood.worker.adapters.store import Committed
from callmood.worker.commits import Restored, TopicPartition
from callmood.worker.errors import Fenced, StoreUnavailable, Unsettled
from callmood.worker.partition.ended import Ended
from callmood.worker.run.takeover import take_over
from callmood.worker.stream_time import StreamTime

SOURCE = TopicPartition("audio", 3)


class _Store:
    def __init__(self, **restored):
        self.restored = Restored(**{"watermark": None, "time": StreamTime(5), "states": {}} | restored)
        self.commits, self.answer = [], None

    def claim(self, _source):
        return self.restored

    def commit(self, commits):
        self.commits += commits
        return self.answer or Committed(tuple(commits))


def told(answer):
    if isinstance(answer, Exception):
        raise answer
    return answer


def take(store, *, latest=True, oldest=10, shown=None):
    """Take over a partition that ends at 50, and whose group was shown an offset."""
    consumer = SimpleNamespace(
        oldest=lambda _: oldest,
        start_of=lambda _: 50 if latest else oldest,
        committed=lambda _, timeout_ms: told(shown) if timeout_ms else None,
    )
    return take_over(store, consumer, SOURCE, starts_latest=latest)


def test_a_start_at_the_end_is_stored_before_anything_is_read():
    """A successor that looked the end up again would skip the records in between."""
    store = _Store()
    assert take(store).start == 50
    assert [(commit.source, commit.watermark, commit.time) for commit in store.commits] == [(SOURCE, 50, StreamTime(5))]


def test_a_start_at_the_oldest_record_is_not_stored():
    """Looked up again, it is the same."""
    store = _Store()
    assert take(store, latest=False).start == 10
    assert store.commits == []


@pytest.mark.parametrize(("first_partitions", "start"), [(None, 50), (3, 10), (4, 50)])
def test_a_partition_that_was_added_later_is_read_from_its_beginning(first_partitions, start):
    """`latest` means the first start; calls of a new partition came after it."""
    store = _Store(first_partitions=first_partitions)
    assert take(store).start == start
    assert store.commits[0].watermark == start


def test_a_start_that_is_not_stored_is_no_start():
    """Without an answer the takeover is tried again, and another owner ends it."""
    store = _Store()
    store.answer = Committed((), failure=StoreUnavailable("down"))
    with pytest.raises(StoreUnavailable):
        take(store)
    store.answer = Committed((), fenced=(SOURCE,))
    with pytest.raises(Fenced):
        take(store)


def test_records_deleted_before_the_takeover_are_counted_once():
    """Reading goes on at the oldest record, so that the client does not find the gap again."""
    lost = metrics.RECORDS_LOST._value.get()
    with capture_logs() as lines:
        taken = take(_Store(watermark=4))
    assert (taken.restored.watermark, taken.start) == (4, 10)
    assert metrics.RECORDS_LOST._value.get() - lost == 6
    assert [(line["event"], line["lost"]) for line in lines] == [("records were deleted before they were read", 6)]


def test_lost_states_are_reported():
    """Their calls begin again, which nobody would understand otherwise."""
    lost = metrics.STORE_LOST._value.get()
    with capture_logs() as lines:
        assert take(_Store(watermark=20, has_lost_states=True)).start == 20
    assert metrics.STORE_LOST._value.get() - lost == 1
    assert [line["log_level"] for line in lines] == ["error"]


@pytest.mark.parametrize(("shown", "start"), [(30, 30), (None, 10)])
def test_a_position_that_is_lost_alone_is_found_again(shown, start):
    """Nothing is skipped, not even with `latest`: the calls whose states are there go on at the group's offset."""
    lost = metrics.STORE_LOST._value.get()
    with capture_logs() as lines:
        taken = take(_Store(states={"odd": b"no state"}), shown=shown)
    assert (taken.restored.watermark, taken.start) == (start, start)
    assert metrics.STORE_LOST._value.get() - lost == 1
    (line,) = lines
    assert (line["log_level"], line["watermark"], line["has_group_offset"]) == ("error", start, shown is not None)


def test_a_group_that_does_not_answer_is_asked_again():
    """A slow coordinator is no reason to begin at the oldest record."""
    with pytest.raises(Unsettled, match="kafka: "):
        take(_Store(states={"odd": b"no state"}), shown=KafkaTimeoutError())


def test_the_clock_is_never_behind_the_calls():
    """A clock that began again with the position would not end a call for as long as the partition had run before."""
    gone, live = Leg("gone"), Leg("live")
    sent = in_time(
        [*gone.media(quiet(2)), gone.send("end")], live.media(quiet(1) + voice(1) + quiet(50), chunk_ms=1_000)
    )
    log, store = log_of(sent), Worker().read(log_of(sent)).commit()
    at = log[-1].position.offset
    store.time = take(_Store(time=None, states=store.states), shown=at).restored.time
    again = Worker(store).read(log[store.watermark :])
    clock = Leg("clock", start_ms=log[-1].timestamp_ms)
    again.read(log_of(clock.media(quiet(620), chunk_ms=1_000), first_offset=at + 1))
    assert again.commit().calls["live"]["end_reason"] == "idle"


def test_a_clock_that_is_lost_alone_is_found_again():
    """A foreign record has replaced it on the states topic: it goes on at the newest time of any call."""
    ended = Ended(last_offset=1, ended_at_ms=77_000, is_paused=False).pack()
    taken = take(_Store(watermark=20, time=None, states={"call": ended}))
    assert (taken.start, taken.restored.time) == (20, StreamTime(77_000))


def test_a_clock_that_has_not_begun_is_no_lost_clock():
    """The first record of the partition is still open: calls whose states are newer read it again at its own time."""
    ended = Ended(last_offset=9, ended_at_ms=77_000, is_paused=False).pack()
    taken = take(_Store(watermark=0, time=StreamTime(), states={"call": ended}), oldest=0)
    assert (taken.start, taken.restored.time) == (0, StreamTime())


def test_a_partition_without_a_leader_is_neither_claimed_nor_reported():
    """It is tried every few seconds, for as long as a broker is away."""
    store = _Store(states={"odd": b"no state"})
    store.claim = lambda _: pytest.fail("claimed")

    def silent(_source):
        raise Unsettled("no leader")

    consumer = SimpleNamespace(oldest=silent)
    with capture_logs() as lines, pytest.raises(Unsettled, match="no leader"):
        take_over(store, consumer, SOURCE, starts_latest=False)
    assert not lines
