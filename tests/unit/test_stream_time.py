"""The partition clock with the timestamps of many gateways."""

import pytest

from callmood.worker.stream_time import StreamTime, in_ms

NOW = 1_700_000_000_000
HOUR = 3_600_000
STARTED = StreamTime(0, NOW)


def after(time, *timestamps_ms):
    """The clock after records with these timestamps."""
    for timestamp_ms in timestamps_ms:
        time = time.after(timestamp_ms)
    return time


def every(step_ms, span_ms, start_ms=NOW):
    """Timestamps of one gateway, with the true time at which each record arrives."""
    return [(at_ms, start_ms + at_ms) for at_ms in range(step_ms, span_ms + 1, step_ms)]


def arrived(*gateways):
    """The timestamps of several gateways in order of arrival."""
    return [timestamp for _, timestamp in sorted(record for gateway in gateways for record in gateway)]


def test_the_first_record_only_sets_the_clock():
    """From nothing to now is a jump, not fifty years of observed time."""
    first = StreamTime().after(NOW)
    assert (first.elapsed_ms, first.newest_ms) == (0, NOW)


@pytest.mark.parametrize("step_ms", [20, 200, 1_000, 2_400, 3_000, 4_000])
def test_steps_are_time(step_ms):
    """Records of any usual length, and a little apart, move the clock by what passed between them."""
    assert after(STARTED, *arrived(every(step_ms, 600_000))).elapsed_ms == 600_000


@pytest.mark.parametrize(("step_ms", "least"), [(5_000, 0.75), (10_000, 0.35), (12_000, 0.15), (30_000, 0.06)])
def test_sparse_records_are_slow_time(step_ms, least):
    """A partition with records far apart ages more slowly, but it ages."""
    time = after(STARTED, *arrived(every(step_ms, 3_600_000)))
    assert least * 3_600_000 <= time.elapsed_ms <= 3_600_000


def test_one_step_stalls_no_stream():
    """Whatever one record says, it counts for less than the 5 s after which a stalled stream is closed."""
    for step_ms in (9_000, 10_000, 10_001, 60_000, HOUR, -HOUR, 10**15):
        assert after(STARTED, NOW + step_ms, NOW + 2 * step_ms).elapsed_ms <= 2 * 4_000


def test_a_night_without_records_is_no_time():
    """A jump of all gateways together counts next to nothing, and ten seconds later the clock goes on."""
    time = after(STARTED, *arrived(every(200, 20_000, NOW + 10 * HOUR)))
    assert 9_000 <= time.elapsed_ms <= 10_000
    assert time.newest_ms == NOW + 10 * HOUR + 20_000


def test_late_records_change_nothing():
    """Disorder within a minute neither turns the clock back nor counts twice."""
    time = after(STARTED, NOW + 500)
    assert after(time, NOW + 100, NOW - 10_000, NOW + 500) == time


ODD = {
    "an hour ahead, a record each 3 s": every(3_000, 600_000, NOW + HOUR),
    "an hour ahead, a record each 200 ms": every(200, 600_000, NOW + HOUR),
    "two minutes ahead, batches of 50": [(at // 10_000 * 10_000, t) for at, t in every(200, 600_000, NOW + 120_000)],
    "15 s ahead, a record each 20 s": every(20_000, 600_000, NOW + 15_000),
    "an hour behind": every(200, 600_000, NOW - HOUR),
    "a minute and a half behind, each 3 s": every(3_000, 600_000, NOW - 90_000),
    "without timestamps": [(at_ms, 0) for at_ms in range(20, 600_000, 20)],
    "in microseconds": [(at_ms, t * 1_000) for at_ms, t in every(200, 600_000)],
    "in microseconds, each second": [(at_ms, t * 1_000) for at_ms, t in every(1_000, 600_000)],
    "in nanoseconds": [(at_ms, t * 1_000_000) for at_ms, t in every(200, 600_000)],
    "in seconds": [(at_ms, t // 1_000) for at_ms, t in every(200, 600_000)],
    "the largest there is": [(at_ms, 2**63 - 1) for at_ms in range(20, 600_000, 20)],
    "counting from 0": every(20, 600_000, 0),
}


@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("step_ms", [200, 3_000])
def test_an_odd_gateway_neither_stops_nor_drives_the_clock(name, step_ms):
    """Ten minutes of one gateway whose clock is right and one whose is not are ten minutes."""
    time = after(STARTED, *arrived(every(step_ms, 600_000), ODD[name]))
    assert time.elapsed_ms == pytest.approx(600_000, rel=0.02, abs=15_000)


@pytest.mark.parametrize("name", ["an hour ahead, a record each 200 ms", "an hour behind", "in microseconds"])
def test_an_odd_gateway_that_comes_first_does_not_keep_the_clock(name):
    """A partition whose first record is odd finds the time of the others, and counts no more than what passes."""
    time = after(StreamTime(), ODD[name][0][1], *arrived(every(200, 600_000), ODD[name]))
    assert time.elapsed_ms == pytest.approx(600_000, rel=0.02, abs=15_000)


QUIET = every(3_000, 600_000)


@pytest.mark.parametrize("alone_ms", [60_000, 3_000_000])
@pytest.mark.parametrize("before", [STARTED, StreamTime()], ids=["later", "first"])
def test_the_clock_of_a_gateway_that_was_ahead_is_given_up_soon_after_it_is_gone(alone_ms, before):
    """It was alone for up to an hour; when only gateways with the right time are left, the clock follows them."""
    alone = after(before, *arrived(every(200, alone_ms, NOW + HOUR)))
    assert alone.newest_ms == NOW + HOUR + alone_ms
    time = after(alone, *arrived([(at_ms, stamp + alone_ms) for at_ms, stamp in QUIET]))
    assert time.newest_ms == NOW + alone_ms + 600_000
    assert time.elapsed_ms - alone.elapsed_ms == pytest.approx(540_000, abs=5_000)


def test_a_doubt_begins_with_each_jump_ahead():
    """However long the clock was right before."""
    day = after(STARTED, *arrived(every(3_000, 2 * HOUR)))
    alone = after(day, *arrived(every(200, 60_000, NOW + 3 * HOUR)))
    time = after(alone, *arrived([(at_ms, stamp + 2 * HOUR + 60_000) for at_ms, stamp in QUIET]))
    assert time.elapsed_ms - alone.elapsed_ms == pytest.approx(540_000, abs=5_000)


def test_a_second_jump_ahead_does_not_hide_where_the_first_began():
    """One gateway after the other was ahead; then only those with the right time are left."""
    ahead = after(STARTED, *arrived(every(200, 60_000, NOW + HOUR)))
    further = after(ahead, *arrived(every(200, 60_000, NOW + 3 * HOUR)))
    assert further.newest_ms == NOW + 3 * HOUR + 60_000
    time = after(further, *arrived([(at_ms, stamp + 120_000) for at_ms, stamp in QUIET]))
    assert time.elapsed_ms - further.elapsed_ms == pytest.approx(540_000, abs=5_000)


@pytest.mark.parametrize(("older_ms", "needed_ms"), [(60_000, 60_000), (66_000, 600_000)])
def test_in_doubt_the_clock_goes_back_to_what_begins_up_to_a_minute_before_what_it_followed(older_ms, needed_ms):
    """What begins earlier may be the audio of a gateway that was cut off, also if it comes that far in the end."""
    ahead = after(STARTED, *arrived(every(200, 60_000, NOW + 8 * HOUR)))
    behind = [NOW - older_ms + at_ms for at_ms in range(0, 900_000, 3_000)]
    needed = next(n for n in range(1, len(behind)) if after(ahead, *behind[:n]).newest_ms < ahead.newest_ms)
    assert (needed - 1) * 3_000 == needed_ms


def test_the_thousandth_odd_record_moves_the_clock_and_no_time_is_taken_back():
    """Whatever its timestamp is within its run."""
    odd = [NOW - HOUR + 1_000] * 999
    assert after(STARTED, *odd).newest_ms == NOW
    moved = after(STARTED, *odd, NOW - HOUR)
    assert (moved.newest_ms, moved.elapsed_ms) == (NOW - HOUR, 0)


def test_after_hours_a_thousand_records_or_ten_minutes_give_such_a_clock_up():
    """By then, what is far behind may as well be a gateway that was cut off."""
    alone = after(STARTED, *arrived(every(3_000, 2 * HOUR, NOW + HOUR)))
    for step_ms, stood_ms in ((200, 200_000), (3_000, 600_000)):
        behind = [(at_ms, stamp + 2 * HOUR) for at_ms, stamp in every(step_ms, 900_000)]
        time = after(alone, *arrived(behind))
        assert time.elapsed_ms - alone.elapsed_ms == pytest.approx(900_000 - stood_ms, abs=5_000)


def test_two_gateways_an_hour_apart_that_send_in_turn_do_not_stop_the_clock():
    """A way ahead costs ten seconds, a way back a minute, and no more time counts than passes."""
    time = STARTED
    for turn in range(20):
        ahead_ms = HOUR if turn % 2 else 0
        time = after(time, *arrived(every(1_000, 120_000, NOW + ahead_ms + turn * 120_000)))
    assert 10 * (108_000 + 58_000) <= time.elapsed_ms <= 20 * 120_000


def test_a_gateway_that_was_cut_off_for_minutes_does_not_turn_a_morning_s_clock_back():
    """Its audio of 50 s comes at once, minutes old, while the clock is in doubt after the night."""
    morning = after(STARTED, *arrived(every(200, 600_000, NOW + 10 * HOUR)))
    flood = every(200, 50_000, NOW + 10 * HOUR + 420_000)
    assert after(morning, *arrived(flood)).newest_ms == morning.newest_ms


def test_after_a_night_what_is_older_than_the_night_is_still_too_late():
    """The doubt after a jump ahead is about what lies between."""
    morning = after(STARTED, *arrived(every(200, 60_000, NOW + 8 * HOUR)))
    assert after(morning, *arrived(every(3_000, 300_000, NOW - HOUR))).newest_ms == morning.newest_ms


def test_what_was_kept_back_and_comes_at_once_is_not_time():
    """A gateway that was cut off for ten minutes sends all of them within a second: the others age by that second."""
    flood = [(n // 600 * 200 + 100, NOW - 600_000 + 200 * n) for n in range(2_700)]  # in batches of 600: 1 MB of PCMU
    assert after(STARTED, *arrived(every(200, 1_000), flood)).elapsed_ms == 1_000


@pytest.mark.parametrize(
    ("timestamp", "expected"),
    [(NOW, NOW), (NOW // 1_000, NOW), (NOW * 1_000, NOW), (NOW * 10**6, NOW), (0, 0), (-1, -1), (2**63 - 1, 2**63 - 1)],
)
def test_units_are_recognised(timestamp, expected):
    """Seconds, microseconds and nanoseconds of this century; anything else stays as it is."""
    assert in_ms(timestamp) == expected


def test_a_gateway_whose_clock_stands_still_does_not_stop_the_clock():
    """A record with the same timestamp again and again agrees with nothing that moves."""
    stuck = [(at_ms, NOW) for at_ms in range(0, 600_000, 5_000)]
    time = after(STARTED, *arrived(every(100, 600_000, NOW + HOUR), stuck))
    assert time.elapsed_ms == pytest.approx(600_000, abs=15_000)


def test_a_record_without_a_timestamp_is_no_time():
    """Neither the first record of a partition nor a later one moves the clock."""
    assert StreamTime().after(-1) == StreamTime()
    assert STARTED.after(-1) == STARTED


@pytest.mark.parametrize("odd", [0, NOW + 10 * HOUR, NOW * 3], ids=["1970", "ahead", "2131"])
def test_absurd_timestamps_do_not_hold_up_the_clock_after_a_night(odd):
    """All gateways stop and go on hours later; one that sends nonsense in between changes nothing."""
    morning = every(200, 60_000, NOW + 8 * HOUR)
    alone = after(STARTED, *arrived(morning))
    absurd = [(at_ms, odd + at_ms // 100) for at_ms in range(0, 60_000, 3_000)]
    assert after(STARTED, *arrived(morning, absurd)).elapsed_ms == pytest.approx(alone.elapsed_ms, abs=5_000)
    assert alone.elapsed_ms > 45_000


def test_timestamps_that_never_agree_do_not_drive_the_clock():
    """Random nonsense makes no run that lasts."""
    noise = [NOW + 1_000_000 * (n * 7_919 % 10_007) for n in range(3_000)]
    assert after(STARTED, *noise).newest_ms in (NOW, *noise)
    assert after(STARTED, *noise).elapsed_ms < 10_000
