"""Sound files as recorders leave them: every format that ffmpeg reads, and headers that are wrong."""

import io
import struct
import subprocess
import sys
from fractions import Fraction

import av
import numpy as np
import pytest
import soundfile

from callmood.worker import g711
from callmood.worker.commands.sound_files import BadRecording, Raw, _second_recording, blocks, probe

RATE_HZ = 8000


def tone(seconds, rate_hz=RATE_HZ, channels=1):
    """A different pitch on each channel, int16 [samples, channels]."""
    t = np.arange(round(seconds * rate_hz)) / rate_hz
    sound = np.stack([np.sin(2 * np.pi * 440 * (n + 1) * t) for n in range(channels)], axis=1)
    return np.round(10_000 * sound).astype(np.int16)


def encoded(path, codec, samples, rate_hz, container=None):
    """A file as ffmpeg's own encoder writes it."""
    with av.open(str(path), "w", format=container) as out:
        layout = "mono" if samples.shape[1] == 1 else "stereo"
        stream = out.add_stream(codec, rate=rate_hz, layout=layout)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples.reshape(1, -1)), format="s16", layout=layout)
        frame.rate, frame.pts, frame.time_base = rate_hz, 0, Fraction(1, rate_hz)
        to_codec = av.AudioResampler(format=stream.codec_context.format, frame_size=stream.codec_context.frame_size)
        for part in [*to_codec.resample(frame), *to_codec.resample(None), None]:
            out.mux(stream.encode(part))
    return path


def read(path, rate_hz=RATE_HZ, raw=None):
    """All samples."""
    return np.concatenate(list(blocks(path, rate_hz, raw)))


def pitch_hz(samples, rate_hz=RATE_HZ):
    """The strongest frequency of one channel."""
    return int(np.argmax(np.abs(np.fft.rfft(samples))) * rate_hz / len(samples))


@pytest.mark.parametrize(
    ("codec", "name", "rate_hz"),
    [
        ("aac", "call.m4a", 44_100),
        ("libopus", "call.webm", 48_000),
        ("libmp3lame", "call.mp3", 8_000),
        ("g722", "call.wav", 16_000),
        ("adpcm_ms", "call.wav", 8_000),
        ("pcm_mulaw", "call.wav", 8_000),
        ("flac", "call.flac", 48_000),
        ("libopus", "call.ogg", 16_000),
    ],
)
def test_a_recording_in_any_codec_is_read(tmp_path, codec, name, rate_hz):
    """Length and pitch are those that were recorded, and there is nothing to notice."""
    path = encoded(tmp_path / name, codec, tone(2, rate_hz), rate_hz)
    found = probe(path, RATE_HZ)
    assert (found.channels, found.notices) == (1, ())
    assert found.samples == len(read(path)) == pytest.approx(16_000, abs=800)
    assert pitch_hz(read(path)[2_000:14_000, 0]) == pytest.approx(440, abs=2)


def test_linear_samples_are_read_as_they_are(tmp_path):
    """Nothing is rounded on the way, and channels stay apart."""
    samples = np.random.default_rng(1).integers(-32768, 32768, (70_000, 2)).astype(np.int16)
    soundfile.write(tmp_path / "call.wav", samples, RATE_HZ, subtype="PCM_16")
    assert np.array_equal(read(tmp_path / "call.wav"), samples)
    assert not probe(tmp_path / "call.wav", RATE_HZ).has_equal_channels


def test_a_format_that_only_libsndfile_knows_is_read(tmp_path):
    """NIST's SPHERE and the like."""
    soundfile.write(tmp_path / "call.mat", tone(1).astype(float) / 32_768, RATE_HZ, format="MAT5", subtype="PCM_16")
    assert probe(tmp_path / "call.mat", RATE_HZ).samples == RATE_HZ


RAW = {
    "call.ulaw": (None, g711.encode_pcmu),
    "call.alaw": (None, g711.encode_pcma),
    "call.sln": (None, lambda samples: samples.tobytes()),
    "call.bin": (Raw("s16be"), lambda samples: samples.astype(">i2").tobytes()),
    "call.raw": (Raw("pcmu", 8000), g711.encode_pcmu),
}


@pytest.mark.parametrize("name", RAW)
def test_a_file_without_a_header_is_read(tmp_path, name):
    """By its name as Asterisk gives it, or as the user says."""
    raw, encode = RAW[name]
    (tmp_path / name).write_bytes(encode(tone(1)[:, 0]))
    assert np.abs(read(tmp_path / name, raw=raw)[:, 0].astype(int) - tone(1)[:, 0]).max() < 400
    assert probe(tmp_path / name, RATE_HZ, raw).notices == ()


def test_raw_rate_and_channels_are_those_that_are_said(tmp_path):
    """Two interleaved channels at 16 kHz."""
    (tmp_path / "call.raw").write_bytes(tone(1, 16_000, channels=2).tobytes())
    samples = read(tmp_path / "call.raw", raw=Raw("s16le", 16_000, 2))
    assert samples.shape == (8_000, 2)
    assert [pitch_hz(samples[:, channel]) for channel in (0, 1)] == [440, 880]


@pytest.fixture
def wav(tmp_path):
    """`wav(length, more)`: a WAV of 10 s whose header names another length, with bytes after it."""

    def write(length=None, more=b"", keep=None):
        path = tmp_path / "call.wav"
        soundfile.write(path, tone(10), RATE_HZ, subtype="PCM_16")
        data = path.read_bytes()
        at = data.index(b"data") + 4
        length = struct.unpack("<I", data[at : at + 4])[0] if length is None else length
        path.write_bytes((data[:at] + struct.pack("<I", length) + data[at + 4 :])[:keep] + more)
        return path

    return write


@pytest.mark.parametrize("length", [0, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF])
def test_a_wav_whose_recorder_was_killed_is_read_to_its_end(wav, length):
    """Lengths that recorders write before they know better."""
    found = probe(wav(length), RATE_HZ)
    assert (found.samples, found.notices) == (80_000, ())


def test_a_wav_with_more_audio_than_its_header_says_is_read_to_its_end(wav):
    """The user is told."""
    found = probe(wav(80_000), RATE_HZ)
    assert (found.samples, found.notices) == (80_000, ("its header says 5.0 s, and it is read to its end: 10.0 s",))


def test_a_wav_that_was_cut_is_read_as_far_as_it_goes(wav):
    """The user is told how much is missing."""
    found = probe(wav(keep=80_044), RATE_HZ)
    assert found.samples == pytest.approx(40_000, abs=1)
    assert found.notices == ("its header says 10.0 s, but the file ends after 5.0 s",)


def test_a_wav_that_is_joined_to_another_says_so(wav):
    """Only the first is read; other parts after the audio are none of it."""
    assert probe(wav(more=wav().read_bytes()), RATE_HZ).notices == (
        "a second recording of 10.0 s follows and is not read",
    )
    assert probe(wav(more=b"LIST" + struct.pack("<I", 4) + b"INFO"), RATE_HZ).notices == ()


PCM = tone(4)[:, 0].tobytes()


def part(name, data):
    """A chunk of a WAV."""
    return name + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)


def riff(*parts, name=b"RIFF"):
    """A WAV of 8 kHz, 16 bits, with these parts behind its format."""
    body = b"WAVE" + b"".join(parts)
    length = struct.pack("<I", len(body)) if name == b"RIFF" else b"\xff\xff\xff\xff"
    return name + length + body


FORMAT = part(b"fmt ", struct.pack("<HHIIHH", 1, 1, 8000, 16_000, 2, 16))
WHOLE = riff(FORMAT, part(b"data", PCM))
FOLLOWED = riff(FORMAT, part(b"data", PCM), part(b"cue ", bytes(28)), part(b"LIST", b"INFO"))
LONGER = "its header says 4.0 s, and it is read to its end: {} s"
SECOND = "a second recording of 4.0 s follows and is not read"


@pytest.mark.parametrize(
    ("data", "samples", "notices"),
    [
        (FOLLOWED, 32_000, ()),
        (WHOLE + b"TAG" + bytes(125), 32_000, ()),
        (riff(part(b"JUNK", bytes(29)), FORMAT, part(b"LIST", b"INFO"), part(b"data", PCM)), 32_000, ()),
        (riff(FORMAT, part(b"data", PCM[:-1])), 31_999, ()),
        (FOLLOWED * 2, 32_000, (SECOND,)),
        (riff(FORMAT, part(b"data", PCM[:-1])) * 2, 31_999, (SECOND,)),
        (riff(FORMAT, part(b"data", PCM), part(b"data", PCM)), 32_000, (SECOND,)),
        (WHOLE + bytes(100_000), 32_000, ()),
        (WHOLE + bytes(8) + PCM, 64_004, (LONGER.format("8.0"),)),
        (WHOLE + bytes(100_000) + PCM, 114_000, (LONGER.format("14.2"),)),
    ],
)
def test_what_follows_the_audio_of_a_wav_is_audio_or_is_not(tmp_path, data, samples, notices):
    """Other chunks, tags and zeros up to the end are no audio; audio may begin with zeros; a second recording is named.

    Nothing is dropped without a notice.
    """
    (tmp_path / "call.wav").write_bytes(data)
    found = probe(tmp_path / "call.wav", RATE_HZ)
    assert (found.samples, found.notices) == (samples, notices)


class _CountingReads(io.BytesIO):
    """A file that counts the reads from it."""

    reads = 0

    def read(self, size=-1):
        self.reads += 1
        return super().read(size)


@pytest.mark.parametrize("end", [0, 1])
def test_a_long_tail_of_zeros_is_not_read_as_millions_of_chunks(end):
    """The search for a second recording ends at the first name that is none."""
    file = _CountingReads(bytes(8_000_000))
    assert _second_recording(file, end) is None
    assert file.reads == 1 + end


@pytest.mark.parametrize("name", [b"RF64", b"BW64"])
@pytest.mark.parametrize(
    ("declared", "keep", "notices"),
    [
        (64_000, 64_000, ()),
        (0, 64_000, ()),
        (32_000, 64_000, ("its header says 2.0 s, and it is read to its end: 4.0 s",)),
        (64_000, 32_000, ("its header says 4.0 s, but the file ends after 2.0 s",)),
    ],
)
def test_a_wav_for_long_recordings_has_its_length_elsewhere(tmp_path, name, declared, keep, notices):
    """RF64 and BW64 are read like WAV, also when the recorder was killed or the file was cut."""
    lengths = part(b"ds64", struct.pack("<QQQI", declared + 72, declared, declared // 2, 0))
    (tmp_path / "call.wav").write_bytes(riff(lengths, FORMAT, b"data\xff\xff\xff\xff" + PCM[:keep], name=name))
    found = probe(tmp_path / "call.wav", RATE_HZ)
    assert (found.samples, found.notices) == (keep // 2, notices)


@pytest.mark.parametrize("size", [0, 11, 13, 30, 44])
def test_a_wav_without_audio_is_refused(tmp_path, size):
    """Wherever it was cut."""
    (tmp_path / "call.wav").write_bytes(WHOLE[:size])
    with pytest.raises(BadRecording):
        probe(tmp_path / "call.wav", RATE_HZ)


@pytest.mark.parametrize(
    ("name", "codec"), [("call.ogg", "libopus"), ("call.webm", "libopus"), ("call.mp3", "libmp3lame")]
)
def test_a_compressed_recording_that_was_cut_says_so(tmp_path, name, codec):
    """What is there is read."""
    path = encoded(tmp_path / name, codec, tone(8, 48_000), 48_000)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    found = probe(path, RATE_HZ)
    assert 20_000 < found.samples < 45_000
    assert any("its end is missing" in text or "its header says" in text for text in found.notices)


def test_a_length_that_no_header_says_is_no_notice(tmp_path):
    """AAC without a container names no length, and silence takes fewer bytes than speech."""
    samples = np.concatenate([tone(2, 16_000), np.zeros((10 * 16_000, 1), np.int16)])
    assert probe(encoded(tmp_path / "call.aac", "aac", samples, 16_000), RATE_HZ).notices == ()


def test_the_length_of_another_track_is_not_that_of_the_audio(tmp_path):
    """In Matroska and WebM, the header names the length of the longest track: a longer video gives no notice."""
    path = tmp_path / "call.mkv"
    with av.open(str(path), "w") as out:
        video, audio = out.add_stream("mpeg4", rate=10), out.add_stream("pcm_s16le", rate=RATE_HZ, layout="mono")
        video.width = video.height = 64
        sound = av.AudioFrame.from_ndarray(tone(2).reshape(1, -1), format="s16", layout="mono")
        sound.rate = RATE_HZ
        for number in range(100):
            picture = av.VideoFrame(64, 64, "yuv420p")
            picture.pts = number
            out.mux(video.encode(picture))
        out.mux([*video.encode(None), *audio.encode(sound), *audio.encode(None)])
    found = probe(path, RATE_HZ)
    assert (found.samples, found.notices) == (2 * RATE_HZ, ())


def test_bytes_behind_the_last_frame_cost_nothing(tmp_path):
    """A tag behind AMR is no frame that this ffmpeg can decode; the recording is read all the same."""
    path = encoded(tmp_path / "call.amr", "libopencore_amrnb", tone(4), RATE_HZ)
    path.write_bytes(path.read_bytes() + b"TAG" + bytes(125))
    found = probe(path, RATE_HZ)
    assert found.samples == pytest.approx(32_000, abs=2_000)
    assert any("damaged at 4.0 s" in text for text in found.notices)


@pytest.mark.parametrize(("first", "second"), [((8_000, 1), (16_000, 1)), ((8_000, 2), (8_000, 1))])
def test_joined_recordings_of_different_formats_are_both_read(tmp_path, first, second):
    """They get the rate and the channels of the first, and the user is told."""
    parts = [
        encoded(tmp_path / f"{number}.mp3", "libmp3lame", tone(3, rate_hz, channels), rate_hz).read_bytes()
        for number, (rate_hz, channels) in enumerate((first, second))
    ]
    (tmp_path / "call.mp3").write_bytes(b"".join(parts))
    found, samples = probe(tmp_path / "call.mp3", RATE_HZ), read(tmp_path / "call.mp3")
    assert (found.samples, found.channels) == (len(samples), first[1])
    assert len(samples) == pytest.approx(48_000, abs=2_500)
    assert pitch_hz(samples[28_000:44_000, 0]) == pytest.approx(440, abs=2)
    assert any(f"changes to mono, {second[0]} Hz" in text for text in found.notices)


def test_joined_mp3_recordings_are_both_read(tmp_path):
    """A recorder that pauses joins files; what their first header says is not all."""
    path = encoded(tmp_path / "call.mp3", "libmp3lame", tone(5), RATE_HZ)
    path.write_bytes(path.read_bytes() * 2)
    found = probe(path, RATE_HZ)
    assert found.samples == pytest.approx(80_000, abs=2_000)
    assert [text for text in found.notices if "its header says" in text]


def test_a_damaged_place_is_left_out_and_named(tmp_path):
    """The rest of a FLAC file is read."""
    soundfile.write(tmp_path / "call.flac", np.random.default_rng(1).normal(0, 0.1, 160_000), RATE_HZ)
    data = bytearray((tmp_path / "call.flac").read_bytes())
    data[len(data) // 2 : len(data) // 2 + 3_000] = bytes(3_000)
    (tmp_path / "call.flac").write_bytes(data)
    found = probe(tmp_path / "call.flac", RATE_HZ)
    assert 130_000 < found.samples < 160_000
    assert any("damaged" in text or "its header says" in text for text in found.notices)


def test_a_film_has_a_sound_track_or_is_refused(tmp_path):
    """A file without audio is named as such."""
    with av.open(str(tmp_path / "film.mkv"), "w") as out:
        stream = out.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 64
        for packet in stream.encode(av.VideoFrame(64, 64, "yuv420p")):
            out.mux(packet)
        for packet in stream.encode(None):
            out.mux(packet)
    with pytest.raises(BadRecording, match="contains no audio track"):
        probe(tmp_path / "film.mkv", RATE_HZ)


def test_a_folder_is_no_sound_file(tmp_path):
    """The message says so."""
    with pytest.raises(BadRecording, match="not a readable sound file: no file"):
        probe(tmp_path, RATE_HZ)


def test_hours_of_audio_take_little_memory(tmp_path):
    """Reading 20 minutes at 48 kHz (230 MB) grows the process by less than 100 MB."""
    with soundfile.SoundFile(tmp_path / "long.wav", "w", 48_000, 2, "PCM_16") as file:
        for _ in range(20):
            file.write(np.zeros((60 * 48_000, 2), np.int16))
    program = (
        "import resource, sys; from pathlib import Path; from callmood.worker.commands.sound_files import probe;"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss; found = probe(Path(sys.argv[1]), 8000);"
        "print(found.samples, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "long.wav")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    samples, grown_kb = map(int, done.stdout.split())
    assert samples == 20 * 60 * RATE_HZ
    assert grown_kb < 100_000


def test_a_wav_with_the_name_of_a_raw_file_is_a_wav(tmp_path):
    """Some recorders name a file by its codec: its header is no audio. With --raw, all of it is."""
    soundfile.write(tmp_path / "call.ulaw", tone(1), RATE_HZ, format="WAV", subtype="ULAW")
    assert probe(tmp_path / "call.ulaw", RATE_HZ).samples == RATE_HZ
    assert probe(tmp_path / "call.ulaw", RATE_HZ, Raw("pcmu")).samples > RATE_HZ
