"""Observed time: what a partition's clock makes of the clocks of many gateways."""

from callmood.worker.stream_time import StreamTime


def after(time, *timestamps_ms):
    """The clock after records with these timestamps."""
    for timestamp_ms in timestamps_ms:
        time = time.after(timestamp_ms)
    return time


STARTED = StreamTime(0, 1_000_000)


def test_the_first_record_only_sets_the_clock():
    """From nothing to now is a jump, not fifty years of observed time."""
    assert StreamTime().after(1_700_000_000_000) == StreamTime(0, 1_700_000_000_000)


def test_small_steps_are_time():
    """Records in step move the clock by what passed between them."""
    assert after(STARTED, 1_000_200, 1_000_400, 1_002_400).elapsed_ms == 2_400


def test_a_night_without_records_is_no_time():
    """A step of more than two seconds moves the newest timestamp only, so that no call ages without being heard."""
    assert after(STARTED, 1_002_001) == StreamTime(0, 1_002_001)


def test_late_records_change_nothing():
    """Disorder within a minute neither turns the clock back nor counts twice."""
    time = after(STARTED, 1_000_500)
    assert after(time, 1_000_100, 990_000, 1_000_500) == time


def test_a_gateway_minutes_ahead_drives_the_clock_once():
    """Two gateways in step, one ahead: time passes once, not twice."""
    ahead = [2_000_000 + 20 * n for n in range(500)]
    behind = [1_000_000 + 20 * n for n in range(500)]
    mixed = [timestamp for pair in zip(ahead, behind, strict=True) for timestamp in pair]
    assert after(StreamTime(), *mixed).elapsed_ms == 20 * 499


def test_the_clock_of_a_gateway_that_ran_ahead_is_given_up_after_it_is_gone():
    """After a thousand records in a row from far behind, time goes on with theirs."""
    ahead = after(STARTED, 4_600_000)
    behind = [1_000_000 + 20 * n for n in range(1_000)]
    resynced = after(ahead, *behind)
    assert resynced == StreamTime(0, behind[-1])
    assert after(resynced, behind[-1] + 20).elapsed_ms == 20


def test_one_record_in_time_keeps_the_clock():
    """Records from far behind count in a row only."""
    time = after(STARTED, *[1_000] * 999, 1_000_000, *[1_000] * 999)
    assert time == StreamTime(0, 1_000_000, 999)


def test_records_without_a_timestamp_stop_nothing():
    """Timestamps of 0 or below are only far behind."""
    assert after(STARTED, 0, -1, 1_000_100).elapsed_ms == 100
