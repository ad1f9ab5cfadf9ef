"""A sound file as the records that telephony would send."""

from dataclasses import replace

import numpy as np
import pytest
import soundfile
from telephony import SOURCE

from callmood.schemas.common import Encoding, Notice, Role
from callmood.worker import g711
from callmood.worker.commands.recordings import BadRecording, Shape, load, load_legs
from callmood.worker.intake import decode
from callmood.worker.records import Position, Record


@pytest.fixture
def sound(tmp_path):
    """Writes a file: `sound(samples, rate_hz)` with float samples, one column a channel."""

    def write(samples, rate_hz=8000, name="call.wav", **options):
        soundfile.write(tmp_path / name, samples, rate_hz, **options)
        return tmp_path / name

    return write


def ramp(samples, channels=1):
    """A different value in each sample and channel."""
    return (np.arange(samples * channels).reshape(samples, channels) * 7_919 % 20_011 - 10_000) / 32_768


def read(recording, max_record_ms=5_000):
    """The chunks that a worker makes of a recording's records."""
    return [
        decode.decode(
            Record(Position(*SOURCE, offset), b"call-1", sent.value, tuple(sent.headers), 0),
            input_format="headers",
            max_record_ms=max_record_ms,
        )
        for offset, sent in enumerate(recording.records())
    ]


def samples(recording):
    """All of it: int16 [samples, channels]."""
    return np.concatenate(list(recording.opened()))


def test_a_stereo_file_is_customer_and_agent(sound):
    """Without a layout the first channel is the customer, the second the agent."""
    recording = load(sound(ramp(800, 2)), Shape())
    assert (recording.layout, recording.notices) == ((Role.CUSTOMER, Role.AGENT), ())


def test_a_mono_file_holds_both_parties_mixed(sound):
    """Nobody on it gets an emotion by default, the user is told why, and a layout changes it."""
    recording = load(sound(ramp(800)), Shape())
    assert recording.layout == (Role.MIXED,)
    assert ["mixed" in text and "--layout customer" in text for text in recording.notices] == [True]
    assert load(sound(ramp(800)), Shape(layout=(Role.CUSTOMER,))).notices == ()


def test_two_equal_channels_are_a_mono_recording(sound):
    """They are read as one mixed channel, and the user is told; a layout is taken at its word."""
    path = sound(np.hstack([ramp(800)] * 2), subtype="PCM_16")
    recording = load(path, Shape())
    assert (recording.layout, samples(recording).shape) == ((Role.MIXED,), (800, 1))
    assert ["channels are equal" in text for text in recording.notices] == [True]
    assert samples(load(path, Shape(layout=(Role.CUSTOMER, Role.AGENT)))).shape == (800, 2)


@pytest.mark.parametrize(
    ("left", "right", "is_mono"),
    [
        ((1, 0, 0), (1, 0, 20), True),
        ((1, 0, 0), (0.6, 0, 20), True),
        ((1, 0, 0), (-1, 0, 0), True),
        ((1, 0, 0), (0.3, 0, 0), False),
        ((1, 0, 0), (0, 1, 0), False),
        ((1, 0.2, 0), (0.2, 1, 0), False),
        ((1, 0, 0), (0, 0, 20), False),
    ],
)
def test_two_channels_with_the_sound_of_one_are_a_mono_recording(sound, left, right, is_mono):
    """The same voice with other noise, somewhat quieter or inverted; not two voices, an echo, or a shared offset."""
    random = np.random.default_rng(1)
    voices = random.normal(0, 2_000, (8_000, 2))
    channels = [
        one * voices[:, 0] + other * voices[:, 1] + random.normal(0, noise or 1e-9, 8_000)
        for one, other, noise in (left, right)
    ]
    recording = load(sound(np.round(np.stack(channels, 1) + 9_000).astype(np.int16), subtype="PCM_16"), Shape())
    assert (recording.layout == (Role.MIXED,)) is is_mono


def test_mono_files_are_the_legs_of_one_call(sound):
    """Each is a channel; the shorter one is silent at its end; a file with two channels is refused."""
    paths = [sound(ramp(12_000), name="a.wav", subtype="PCM_16"), sound(ramp(800), name="b.wav", subtype="PCM_16")]
    recording = load_legs(paths, Shape(encoding=Encoding.S16LE))
    assert (recording.layout, recording.samples) == ((Role.CUSTOMER, Role.AGENT), 12_000)
    both = samples(recording)
    assert np.array_equal(both[:, 0], samples(load(paths[0], Shape()))[:, 0])
    assert np.array_equal(both[:800, 1], both[:800, 0])
    assert not both[800:, 1].any()
    with pytest.raises(BadRecording, match="has 2 channels, and a leg of a call has one"):
        load_legs([paths[0], sound(ramp(8, 2))], Shape())
    with pytest.raises(BadRecording, match="3 files are one call, but the layout names 2"):
        load_legs([*paths, paths[0]], Shape())


def test_the_length_of_the_blocks_of_a_file_changes_no_record(sound):
    """Records are cut from whatever blocks the reader gives."""
    recording = load(sound(ramp(5_000), subtype="PCM_16"), Shape(chunk_ms=100))
    whole = samples(recording)
    for length in (1, 799, 800, 801, 4_999):
        parts = [whole[first : first + length] for first in range(0, len(whole), length)]
        cut = replace(recording, opened=lambda parts=parts: parts)
        assert list(cut.records()) == list(recording.records())


def test_records_are_legal_numbered_and_timed(sound):
    """Start, media in equal records, a shorter rest, and the end, as the contract says."""
    chunks = read(load(sound(ramp(4_100)), Shape(chunk_ms=200)))
    assert [chunk.event for chunk in chunks] == ["start", "media", "media", "media", "end"]
    assert [chunk.seq for chunk in chunks] == [0, 1, 2, 3, 4]
    assert [chunk.media_ms for chunk in chunks] == [0.0, 0.0, 200.0, 400.0, 512.5]
    assert [chunk.samples for chunk in chunks] == [0, 1_600, 1_600, 900, 0]


def test_a_record_is_due_when_its_last_sample_was_spoken(sound):
    """A live producer cannot send audio before it is there."""
    sent = list(load(sound(ramp(4_000)), Shape(chunk_ms=200)).records())
    assert [item.due_ms for item in sent] == [0.0, 200.0, 400.0, 500.0, 500.0]


@pytest.mark.parametrize("encoding", [Encoding.S16LE, Encoding.S16BE])
def test_samples_arrive_as_they_are_in_the_file(sound, encoding):
    """Linear encodings lose nothing, in either byte order, and channels stay apart."""
    path = sound(ramp(1_000, 2), subtype="PCM_16")
    chunks = read(load(path, Shape(encoding=encoding)))
    audio = b"".join(chunk.audio for chunk in chunks)
    assert np.array_equal(np.frombuffer(audio, "<i2").reshape(-1, 2), soundfile.read(path, dtype="int16")[0])


@pytest.mark.parametrize(("encoding", "table"), [(Encoding.PCMU, g711.PCMU_TO_S16), (Encoding.PCMA, g711.PCMA_TO_S16)])
def test_companded_samples_are_near(sound, encoding, table):
    """G.711 rounds to its own steps and keeps the order of channels."""
    path = sound(ramp(1_000, 2))
    audio = b"".join(chunk.audio for chunk in read(load(path, Shape(encoding=encoding))))
    error = table[np.frombuffer(audio, np.uint8)].reshape(-1, 2) - soundfile.read(path, dtype="int16")[0].astype(int)
    assert np.abs(error).max() < 320


def test_another_rate_is_resampled(sound):
    """A studio recording becomes a telephone call of the same length and pitch."""
    t = np.arange(48_000) / 48_000
    recording = load(sound(0.5 * np.sin(2 * np.pi * 440 * t), 48_000, "studio.flac"), Shape(rate_hz=8000))
    assert recording.duration_ms == 1_000
    assert samples(recording).shape == (8_000, 1)
    spectrum = np.abs(np.fft.rfft(samples(recording)[:, 0]))
    assert int(np.argmax(spectrum)) == 440


def test_what_the_caller_of_the_command_says_is_in_the_start(sound):
    """Attributes and notice are told once."""
    start, media, *_ = read(load(sound(ramp(800)), Shape(notice=Notice.GIVEN, attributes={"queue": "sales"})))
    assert (start.notice, start.attributes) == (Notice.GIVEN, {"queue": "sales"})
    assert (media.notice, media.attributes) == (None, {})


def test_loud_samples_are_clipped_not_wrapped(sound):
    """What exceeds full scale stays at it."""
    recording = load(sound(np.array([1.5, -1.5, 1.0]), subtype="FLOAT"), Shape())
    assert samples(recording)[:, 0].tolist() == [32_767, -32_768, 32_767]


def test_files_that_are_no_calls_say_why(sound, tmp_path):
    """The message names the file and what is wrong with it."""
    (tmp_path / "text.wav").write_text("no sound")
    with pytest.raises(BadRecording, match=r"missing\.wav: not a readable sound file: no such file"):
        load(tmp_path / "missing.wav", Shape())
    with pytest.raises(BadRecording, match=r"text\.wav: not a readable sound file"):
        load(tmp_path / "text.wav", Shape())
    with pytest.raises(BadRecording, match="contains no audio"):
        load(sound(np.zeros((0, 1))), Shape())
    with pytest.raises(BadRecording, match="has 3 channels, but the layout names 2: set --layout"):
        load(sound(ramp(800, 3)), Shape())
    with pytest.raises(BadRecording, match="has 10 channels, and a call has at most 8"):
        load(sound(ramp(80, 10)), Shape(layout=(Role.CUSTOMER,) * 10))
    with pytest.raises(BadRecording, match="has 1 channels, but the layout names 2"):
        load(sound(ramp(800)), Shape(layout=(Role.CUSTOMER, Role.AGENT)))
