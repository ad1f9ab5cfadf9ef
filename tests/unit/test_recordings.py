"""A sound file as the records that telephony would send."""

import numpy as np
import pytest
import soundfile
from telephony import SOURCE

from callmood.schemas.common import Encoding, Notice, Role
from callmood.worker import g711
from callmood.worker.commands.recordings import BadRecording, Shape, load
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
    return (np.arange(samples * channels).reshape(samples, channels) % 20_000 - 10_000) / 32_768


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


def test_a_mono_file_is_a_customer_and_a_stereo_file_both_parties(sound):
    """Without a layout the first channel is the customer, the second the agent."""
    assert load(sound(ramp(800)), Shape()).layout == (Role.CUSTOMER,)
    assert load(sound(ramp(800, 2)), Shape()).layout == (Role.CUSTOMER, Role.AGENT)


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
    spectrum = np.abs(np.fft.rfft(recording.pcm[:, 0]))
    assert int(np.argmax(spectrum)) == 440


def test_what_the_caller_of_the_command_says_is_in_the_start(sound):
    """Attributes and notice are told once."""
    start, media, *_ = read(load(sound(ramp(800)), Shape(notice=Notice.GIVEN, attributes={"queue": "sales"})))
    assert (start.notice, start.attributes) == (Notice.GIVEN, {"queue": "sales"})
    assert (media.notice, media.attributes) == (None, {})


def test_loud_samples_are_clipped_not_wrapped(sound):
    """What exceeds full scale stays at it."""
    recording = load(sound(np.array([1.5, -1.5, 1.0]), subtype="FLOAT"), Shape())
    assert recording.pcm[:, 0].tolist() == [32_767, -32_768, 32_767]


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
    with pytest.raises(BadRecording, match="has 1 channels, but the layout names 2"):
        load(sound(ramp(800)), Shape(layout=(Role.CUSTOMER, Role.AGENT)))
