"""How far the watermark may stay behind, and what a partition keeps in memory, in calls that never seem to end."""

import msgpack
import pytest
from telephony import EPOCH_MS, Leg, Store, Worker, both, in_time, log_of, quiet, voice

LIMIT_MS = 25_000


def lag_ms(sent, *, every=5):
    """The oldest audio that a successor would have to read again, at the worst moment, in ms of the log's time."""
    worker, worst = Worker(), 0
    for index, record in enumerate(log_of(sent)):
        worker.read([record])
        if index % every == 0:
            worker.commit()
        oldest_ms = worker.partition.oldest_capture_ms
        worst = max(worst, record.timestamp_ms - oldest_ms) if oldest_ms is not None else worst
    worker.commit()
    return worst, worker


@pytest.mark.parametrize("hold", [quiet, voice], ids=["silence", "music"])
def test_hold_keeps_up(hold):
    """Ten minutes of silence or of music on hold are settled as they come."""
    worst, _ = lag_ms(Leg().media(hold(600), chunk_ms=1_000))
    assert worst <= LIMIT_MS


def test_one_talking_channel_does_not_hold_back_the_other_for_long():
    """A monologue is split, so that the records of both channels are settled."""
    worst, _ = lag_ms(Leg(layout="customer,agent").media(both(voice(120), quiet(120)), chunk_ms=500))
    assert worst <= LIMIT_MS


def test_a_stream_that_was_left_behind_holds_nothing_back():
    """After a reconnect the old stream is closed within seconds, while its call goes on for long."""
    old, new = Leg(stream="0"), Leg(stream="1", start_ms=EPOCH_MS + 3_000)
    worst, worker = lag_ms(old.media(quiet(1) + voice(2)) + new.media(quiet(120), chunk_ms=500))
    assert worst <= LIMIT_MS
    (said,) = worker.store.of()
    assert (said["stream"], said["quality"]["cut"]) == ("0", "gap")


def test_a_call_whose_end_was_lost_holds_nothing_back():
    """Its last words are told, and the others go on."""
    lost, other = Leg(), Leg("other")
    worst, worker = lag_ms(in_time(lost.media(quiet(1) + voice(2)), other.media(quiet(120), chunk_ms=500)))
    assert worst <= LIMIT_MS
    assert len(worker.store.of()) == 1


def test_records_that_wait_for_a_lost_one_are_let_go_when_the_stream_stalls():
    """Held records that nobody follows are heard before the stream is left alone."""
    lost, other = Leg(), Leg("other")
    sent = lost.media(quiet(1) + voice(2))
    del sent[9]
    worst, worker = lag_ms(in_time(sent, other.media(quiet(60), chunk_ms=500)))
    assert worst <= LIMIT_MS
    (said,) = worker.store.of()
    assert said["end_ms"] == 3_000


def test_a_paused_call_holds_nothing_back():
    """However long the pause, whether the gateway sends meanwhile or not."""
    leg, other = Leg(), Leg("other", start_ms=EPOCH_MS)
    sent = [*leg.media(quiet(1) + voice(1)), leg.send("pause"), *leg.media(voice(60), chunk_ms=500)]
    worst, worker = lag_ms(in_time(sent, other.media(quiet(180), chunk_ms=500)))
    assert worst <= LIMIT_MS
    assert len(worker.store.of()) == 1


def test_gateways_whose_clocks_differ_by_minutes_hold_nothing_back():
    """The clock of the partition runs although one gateway is three minutes ahead of the other."""
    ahead, behind = Leg("ahead", start_ms=EPOCH_MS + 180_000), Leg("behind")
    pairs = zip(ahead.media(quiet(90), chunk_ms=200), behind.media(quiet(90), chunk_ms=200), strict=True)
    worker = Worker().read(log_of([item for pair in pairs for item in pair]))
    store = worker.commit()
    assert worker.partition.position - store.watermark <= 2 * 15
    assert store.time.elapsed_ms > 89_000


def test_a_gateway_an_hour_ahead_stops_the_others_for_a_while_only():
    """After its call the others' time goes on, and their state is saved again."""
    ahead, behind = Leg("ahead", start_ms=EPOCH_MS + 3_600_000), Leg("behind")
    sent = [*ahead.media(quiet(2)), ahead.send("end"), *behind.media(quiet(60), chunk_ms=50)]
    worker = Worker()
    store = worker.read(log_of(sent)).commit()
    assert worker.partition.position - store.watermark <= 60
    assert store.time.elapsed_ms > 11_000


def test_an_endless_call_has_a_small_state():
    """After twenty minutes of talk the state is as small as after one, and so is what the process keeps."""
    leg, worker, sizes = Leg(layout="customer,agent"), Worker(), []
    talk = both(quiet(0.6) + voice(1) + quiet(1), quiet(1.6) + voice(0.6) + quiet(0.4))
    for _ in range(20):
        worker.read(log_of(leg.media(talk * 23, chunk_ms=1_000), first_offset=worker.partition.position))
        sizes.append(len(worker.commit().states["call-1"]))
    assert max(sizes[1:]) < 1.2 * sizes[1]
    call = worker.partition._calls["call-1"].call
    assert len(call._unsettled) <= LIMIT_MS / 1_000
    assert sum(len(channel._recent._audio) for channel in call._streams["0"]._channels) <= 2 * 8 * LIMIT_MS


def test_an_ended_call_leaves_nothing_but_its_end():
    """What is kept of a call that is over is a few bytes, and after its time nothing at all."""
    leg, other = Leg(), Leg("other", start_ms=EPOCH_MS + 10_000)
    worker = Worker().read(log_of([*leg.media(quiet(0.6) + voice(1)), leg.send("end")]))
    state = worker.commit().states["call-1"]
    assert "ended" in msgpack.unpackb(state)
    assert len(state) < 40
    worker.read(log_of(other.media(quiet(610), chunk_ms=1_000), first_offset=100))
    assert worker.commit().states.keys() == {"other"}
    assert Worker(Store(time=worker.store.time, states=worker.store.states)).partition.live_calls == 1
