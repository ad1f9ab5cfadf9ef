"""Where a stream stands on its media time line and on that of its call."""

from itertools import count, pairwise

import msgpack
import msgspec
import pytest

from callmood.schemas.common import Encoding, Event, Role
from callmood.worker.records import AudioFormat, Chunk, Position
from callmood.worker.speech.media_time import MediaTime, Step
from callmood.worker.speech.stream_state import MediaTimeState

_NOW_MS = 1_700_000_000_000


_NUMBERS = count()


def chunk(media_ms=None, *, captured_ms=0.0, event=Event.MEDIA, samples=160):
    """A record of 20 ms that was captured at this time of the test."""
    audio = AudioFormat(Encoding.PCMU, 8000, (Role.CUSTOMER,)) if event is Event.MEDIA else None
    position = Position("audio", 0, 0)
    return Chunk(
        "call",
        "0",
        next(_NUMBERS),
        event,
        position,
        round(_NOW_MS + captured_ms),
        media_ms,
        audio,
        bytes(samples if audio else 0),
    )


def begun(rate_hz=8000, offset_ms=0, heard_ms=0):
    """A position after this much audio, whose media time and capture time began at 0."""
    time = MediaTime(offset_ms)
    time.step_to(chunk(0.0, event=Event.START), 0)
    time.begin(rate_hz)
    if heard_ms:
        time.advance(heard_ms * rate_hz // 1000 - rate_hz // 50)
        time.advance(rate_hz // 50)
    return time


def test_before_the_first_audio_time_counts_in_milliseconds():
    """A gap before the first audio moves the position, though there is no sample yet."""
    time = MediaTime(100)
    assert time.skip(1_500) == 0
    assert time.call_position_ms == 1_600
    time.begin(8000)
    assert time.sample == 12_000
    assert time.call_position_ms == 1_600


@pytest.mark.parametrize("media_ms", [0.0, 100.0, 4_000.0])
def test_the_clock_of_the_first_record_is_not_behind_what_was_lost_before_it(media_ms):
    """A record without media time has said that three seconds are missing."""
    time = MediaTime(0)
    time.skip(3_000)
    time.step_to(chunk(media_ms, captured_ms=10_000), 0)
    assert time.zero_ms == _NOW_MS + 10_000 - max(3_000, media_ms)


@pytest.mark.parametrize(("media_ms", "ahead_ms"), [(1_020.0, 0.0), (1_020.1, 20.1), (990.0, 0.0)])
def test_only_more_than_rounding_is_ahead(media_ms, ahead_ms):
    """Up to 20 ms is rounding, and behind is not followed."""
    assert begun(heard_ms=1_000).step_to(chunk(media_ms), 0) == (0, pytest.approx(ahead_ms))


def test_a_jump_of_media_time_without_a_missing_number_is_silence():
    """Nothing was sent, so nothing was lost."""
    assert begun(heard_ms=1_000).step_to(chunk(9_000.0), 0) == Step(0, 8_000)


def test_missing_numbers_are_lost_and_the_rest_of_a_jump_is_silence():
    """What is lost is as long as the records that are missing."""
    assert begun(heard_ms=1_000).step_to(chunk(9_000.0), 3) == Step(60, 7_940)
    assert begun(heard_ms=1_000).step_to(chunk(1_020.0), 1) == Step(20, 0)
    assert begun(heard_ms=1_000).step_to(chunk(1_020.0), 5) == Step(20, 0)


def test_before_an_event_missing_records_are_as_long_as_the_newest():
    """An event has no audio of its own to tell."""
    assert begun(heard_ms=1_000).step_to(chunk(5_000.0, event=Event.END), 10) == Step(200, 3_800)


@pytest.mark.parametrize(("captured_ms", "silent_ms"), [(1_000, 0), (1_100, 0), (1_101, 101), (9_000, 8_000), (500, 0)])
def test_without_media_time_the_capture_time_tells_of_silence(captured_ms, silent_ms):
    """A record that was captured more than 100 ms after the audio before it follows a silence."""
    assert begun(heard_ms=1_000).step_to(chunk(captured_ms=captured_ms), 0) == Step(0, silent_ms)


def test_without_media_time_lost_records_count_before_silence():
    """Of 8 s, three records were lost and the rest was silent."""
    assert begun(heard_ms=1_000).step_to(chunk(captured_ms=9_000), 3) == Step(60, 7_940)
    assert begun(heard_ms=1_000).step_to(chunk(captured_ms=1_060), 3) == Step(60, 0)


@pytest.mark.parametrize("event", [Event.END, Event.PAUSE, Event.RESUME])
def test_an_event_without_media_time_is_where_it_was_captured(event):
    """An `end` as in the contract's example says when the call ended."""
    assert begun(heard_ms=1_000).step_to(chunk(event=event, captured_ms=1_040), 0) == Step(0, 40)


def test_a_gap_without_media_time_begins_at_the_audio_before_it():
    """It may be sent at its end, when its length is known."""
    assert begun(heard_ms=1_000).step_to(chunk(event=Event.GAP, captured_ms=5_000), 0) == Step(0, 0)


@pytest.mark.parametrize("captured_ms", [-_NOW_MS, -3_600_000, 10 * 3_600_000])
def test_a_capture_clock_that_was_set_makes_no_silence(captured_ms):
    """After a jump of the clock, silences are measured by the new time."""
    time = begun(heard_ms=1_000)
    assert time.step_to(chunk(captured_ms=captured_ms), 0) == Step(0, 0)
    assert time.step_to(chunk(captured_ms=captured_ms + 2_000), 0) == Step(0, 2_000)


def test_media_time_of_a_first_record_is_its_base():
    """RTP begins at a random time (RFC 3550, 5.1): the stream begins at 0, where it was captured."""
    time = MediaTime(0)
    assert time.step_to(chunk(388_902_791.625), 0) == Step(0, 0)
    time.begin(8000)
    time.advance(160)
    assert time.step_to(chunk(388_902_811.625, captured_ms=20), 0) == Step(0, 0)
    assert time.step_to(chunk(388_907_811.625, captured_ms=5_020), 0) == Step(0, 5_000)
    assert time.zero_ms == _NOW_MS


def test_the_first_audio_is_where_it_was_captured():
    """A track that begins long after its `start` with media time 0 is not put at the `start`."""
    time = MediaTime(0)
    time.step_to(chunk(0.0, event=Event.START), 0)
    time.begin(8000)
    step = time.step_to(chunk(0.0, captured_ms=30_000), 0)
    assert step == Step(0, 30_000)
    time.skip(step.silent_ms)
    time.advance(160)
    assert time.step_to(chunk(20.0, captured_ms=30_020), 0) == Step(0, 0)


@pytest.mark.parametrize("back_to_ms", [0.0, 12_345.0])
def test_media_time_that_starts_again_goes_on_where_it_was_captured(back_to_ms):
    """After an outage of 5 s with a restart of the gateway, these are lost; then media time counts as before."""
    time = begun(heard_ms=60_000)
    moved = []
    for number, silent_ms in enumerate((0, 0, 0, 2_000)):
        since_ms = number * 20 + silent_ms
        step = time.step_to(chunk(back_to_ms + since_ms, captured_ms=65_000 + since_ms), 0)
        moved.append(step)
        time.skip(step.lost_ms + step.silent_ms)
        time.advance(160)
    assert moved == [Step(5_000, 0), Step(0, 0), Step(0, 0), Step(0, pytest.approx(2_000))]


def test_an_event_whose_media_time_starts_again_shows_no_loss():
    """An `end` or a `hold` after suppressed silence, from a gateway that stamps events 0: nothing was lost."""
    for event in (Event.END, Event.HOLD):
        assert begun(heard_ms=60_000).step_to(chunk(0.0, captured_ms=65_000, event=event), 0) == Step(0, 5_000)


def test_one_record_with_media_time_0_changes_nothing():
    """A garbled timestamp behind the position is passed over, and the next record follows."""
    time = begun(heard_ms=60_000)
    assert time.step_to(chunk(0.0, captured_ms=60_000), 0) == Step(0, 0)
    time.advance(160)
    assert time.step_to(chunk(60_020.0, captured_ms=60_020), 0) == Step(0, 0)
    assert time.step_to(chunk(62_020.0, captured_ms=62_020), 0) == Step(0, 2_000)


@pytest.mark.parametrize(
    ("media_ms", "captured_ms", "is_absurd"),
    [
        (60_000, 60_000, False),
        (69_000, 60_000, False),
        (75_000, 60_000, True),
        (60_000 + 2**31 / 8, 60_000, True),
        (720_000, 720_000, False),
        (720_000, 60_000, True),
        (0, 60_000, False),
    ],
)
def test_media_time_far_ahead_of_the_capture_time_is_absurd(media_ms, captured_ms, is_absurd):
    """More than 10 s ahead of what has passed since; eleven minutes of hold are not."""
    assert begun(heard_ms=60_000).is_absurd(chunk(float(media_ms), captured_ms=captured_ms)) is is_absurd


def test_without_a_live_capture_clock_jumps_up_to_an_hour_are_believed():
    """A recorded call that is produced at once has one capture time; its silences are what media time says."""
    time = begun(heard_ms=60_000)
    assert not time.is_absurd(chunk(660_000.0))
    assert time.is_absurd(chunk(60_000 + 2**31 / 8))
    assert time.step_to(chunk(660_000.0), 0) == Step(0, 600_000)


@pytest.mark.parametrize("ppm", [300, -300, 30, -30])
def test_the_place_on_the_time_line_follows_the_drift_of_the_samples(ppm):
    """After 40 minutes of a clock that runs at another rate, a sample is where it was captured, within 60 ms."""
    time, true_ms = begun(), 0.0
    for number in range(12_000):
        true_ms = number * 200 * (1 - ppm * 1e-6)
        record = chunk(number * 200.0, captured_ms=round(true_ms), samples=1_600)
        assert time.step_to(record, 0) == Step(0, 0)
        time.follow(record)
        assert abs(time.call_ms(time.sample) - true_ms) <= 60
        time.advance(1_600)


@pytest.mark.parametrize("captured_each_ms", [200.2, 199.8])
def test_a_sample_keeps_its_place_while_the_drift_is_followed(captured_each_ms):
    """Both halves of a split utterance meet, and time never runs back, whatever was learnt between their ends."""
    time, places = begun(), {}
    for number in range(600):
        record = chunk(number * 200.0, captured_ms=number * captured_each_ms, samples=1_600)
        before_ms = time.call_position_ms
        time.follow(record)
        assert time.call_position_ms >= before_ms
        places[time.sample] = time.call_ms(time.sample)
        time.advance(1_600)
        for sample in list(places)[-150:]:  # 30 s
            assert time.call_ms(sample) == places[sample]
    samples = range(0, time.sample, 8)
    assert all(time.call_ms(first) <= time.call_ms(second) for first, second in pairwise(samples))
    assert abs(time.call_position_ms - 600 * captured_each_ms) <= 60
    assert (
        MediaTime.load(msgspec.convert(msgpack.unpackb(msgpack.packb(time.save())), MediaTimeState)).save()
        == time.save()
    )


def test_jitter_of_capture_times_makes_no_silence_again_and_again():
    """Records that are stamped in batches move the position once, to the latest of a batch, and never again."""
    time, moved = begun(), 0.0
    for number in range(500):
        step = time.step_to(chunk(captured_ms=number // 25 * 500 + 500 if number else 0), 0)
        time.skip(step.silent_ms)
        moved += step.silent_ms
        time.advance(160)
    assert moved <= 500


def test_skipping_moves_by_whole_samples():
    """The samples skipped are returned and added."""
    time = begun(rate_hz=16_000)
    assert time.skip(12.53) == 200
    assert time.sample == 200
    assert time.ms(200) == 12.5


def test_the_longest_leap_is_bounded():
    """A garbled seq may say that ages are missing; the position must stay a number that can be stored."""
    time = begun(rate_hz=48_000)
    assert time.skip(1e20) == 48 * 10**9


def test_samples_lie_on_the_time_line_of_the_call():
    """A stream that began later has its offset added."""
    time = begun(offset_ms=30_000)
    assert time.call_ms(8_000) == 31_000
    assert time.call_position_ms == 30_000


def test_a_saved_position_is_restored():
    """A successor goes on with the same steps."""
    time = begun(heard_ms=500, offset_ms=7)
    restored = MediaTime.load(time.save())
    assert (restored.sample, restored.rate_hz, restored.offset_ms) == (4_000, 8000, 7)
    for record in (chunk(captured_ms=900), chunk(5_000.0), chunk(event=Event.END, captured_ms=700)):
        assert restored.step_to(record, 2) == time.step_to(record, 2)
    early = MediaTime(0)
    early.skip(250)
    assert MediaTime.load(early.save()).call_position_ms == 250
