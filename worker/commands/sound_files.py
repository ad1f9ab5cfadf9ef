"""Sound files, read as ffmpeg reads them (PyAV), block by block: a recording of hours takes little memory."""

import struct
from collections.abc import Iterator, Mapping
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

import av
import numpy as np
import soundfile
import soxr
from av.audio.resampler import AudioResampler
from numpy.typing import NDArray

from callmood.schemas.common import LooksLike
from callmood.worker.call.plausible import looks_like
from callmood.worker.errors import ConfigurationError

_FULL_SCALE: Final = 32768
_TOLERANCE_S: Final = 0.25  # encoders pad the last frame, and headers round
_UNFINISHED: Final = {0, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF}  # lengths of a WAV whose recorder did not end properly
_BLOCK: Final = 65_536
_FEW_SWAPPED: Final = 0.1
_WORDS: Final = ("pcm_s16le", "pcm_s16be")
_UNSCALED: Final = 8  # times full scale: decoders overshoot by less
_EQUAL: Final = 0.99  # of the power of one channel is in the other: they have different noise
_EQUAL_GAIN: Final = 2.0
_SWAPPED: Final = "looks as if its bytes were swapped: set --raw to s16le or s16be"
_RIFF_HEADER: Final = 12
_CHUNK_HEADER: Final = 8
_LONG_RIFF: Final = (b"RF64", b"BW64")
"""WAV files of more than 4 GB: the chunk `ds64` has the lengths."""
_RECORDINGS: Final = (b"RIFF", *_LONG_RIFF, b"data")
_WITHOUT_LENGTH: Final = {"aac", "ac3", "eac3"}  # ffmpeg guesses the length of such a file from its size
_OGG_PAGE_MAX: Final = 65_307  # bytes
_OGG_LAST_PAGE: Final = 4  # flag in the second byte behind `OggS`
_RAW: Final = {"pcmu": "mulaw", "pcma": "alaw", "s16le": "s16le", "s16be": "s16be", "g722": "g722"}


class BadRecording(ConfigurationError):  # noqa: N818 - a file is bad; the program is not in error
    """A file that cannot be used as a call; the message says why."""


class Raw(NamedTuple):
    """A file without a header: its encoding (a key of `RAW_ENCODINGS`), sample rate and number of channels."""

    encoding: str
    rate_hz: int = 8000
    channels: int = 1


RAW_ENCODINGS: Final = tuple(_RAW)
_SLN_RATES_KHZ: Final = {"": 8, "12": 12, "16": 16, "24": 24, "32": 32, "44": 44.1, "48": 48, "96": 96, "192": 192}
_RAW_SUFFIXES: Final[Mapping[str, Raw]] = {
    **dict.fromkeys((".ulaw", ".ul", ".mu", ".pcm"), Raw("pcmu")),
    **dict.fromkeys((".alaw", ".al"), Raw("pcma")),
    ".g722": Raw("g722", 16_000),
    **{f".sln{name}": Raw("s16le", round(khz * 1000)) for name, khz in _SLN_RATES_KHZ.items()},
}
"""Files without a header as Asterisk names them (its formats ulaw, alaw, pcm, g722, slin)."""


class Probe(NamedTuple):
    """All that is known of a file once it has been read.

    `samples` counts at the rate that was asked for. `has_equal_channels`: several that differ by noise and by at most
    6 dB. `notices` say what a user should know of it: a header that is wrong, damage, a second recording.
    """

    samples: int
    channels: int
    has_equal_channels: bool
    notices: tuple[str, ...]


def probe(path: Path, rate_hz: int, raw: Raw | None = None) -> Probe:
    """Read a file to its end.

    Raises:
        BadRecording: it is missing, holds no sound or holds none that can be read.
    """
    reader, likeness, samples = _Reader(path, rate_hz, raw), _Likeness(), 0
    for block in reader.blocks():
        samples += len(block)
        likeness.add(block)
    if not samples:
        raise BadRecording(f"{path}: contains no audio")
    return Probe(samples, likeness.channels, likeness.is_equal, reader.notices())


class _Likeness:
    """Whether all channels have the same sound: sums of each channel, and of its products with the first one."""

    def __init__(self) -> None:
        self.channels = 0
        self._samples = 0
        self._sums: NDArray[np.float64] = np.zeros(0)
        self._products: NDArray[np.float64] = np.zeros((0, 0))

    def add(self, block: NDArray[np.int16]) -> None:
        """The next samples, [samples, channels]."""
        samples = block.astype(np.float64)
        if not self.channels:
            self.channels = block.shape[1]
            self._sums, self._products = np.zeros(self.channels), np.zeros((self.channels, self.channels))
        self._samples += len(block)
        self._sums += samples.sum(axis=0)
        self._products += samples.T @ samples

    @property
    def is_equal(self) -> bool:
        """Whether there are several, and each has the sound of the first."""
        shared = self._products - np.outer(self._sums, self._sums) / max(1, self._samples)
        power, own = np.diag(shared), shared[0]
        is_alike = own**2 >= _EQUAL * power[0] * power
        is_as_loud = (power <= _EQUAL_GAIN**2 * power[0]) & (power[0] <= _EQUAL_GAIN**2 * power)
        return self.channels > 1 and bool((is_alike & is_as_loud).all())


def blocks(path: Path, rate_hz: int, raw: Raw | None = None) -> Iterator[NDArray[np.int16]]:
    """The samples of a file, resampled: int16 [samples, channels] a block."""
    return _Reader(path, rate_hz, raw).blocks()


class _Reader:
    """Reads one file, and notes what is odd about it."""

    def __init__(self, path: Path, rate_hz: int, raw: Raw | None) -> None:
        if not path.is_file():
            raise BadRecording(f"{path}: not a readable sound file: {'no file' if path.exists() else 'no such file'}")
        self._path = path
        self._rate_hz = rate_hz
        self._raw = raw or (None if _is_wave(path) else _RAW_SUFFIXES.get(path.suffix.lower()))
        self._declared_s: float | None = None
        self._read_s = 0.0
        self._damaged_s: list[float] = []
        self._tracks = 1
        self._notices: list[str] = []
        self._options: dict[str, str] = {}
        self._has_words = False
        self._swapped: list[bool] = []
        self._peak = 0.0
        self._no_numbers = 0
        if self._raw is None:
            with path.open("rb") as file:
                self._look_at(file, path.stat().st_size)

    def notices(self) -> tuple[str, ...]:
        """What is odd, once all blocks are read."""
        said = list(self._notices)
        if self._damaged_s:
            said.append(f"damaged at {self._damaged_s[0]:.1f} s and in {len(self._damaged_s)} places in all")
        if self._no_numbers:
            said.append(f"{self._no_numbers} of its samples are not numbers, and are taken for silence")
        if self._peak > _UNSCALED:
            said.append(f"its samples reach {self._peak:.0f} times full scale and are clipped: scale them to -1 to 1")
        if sum(self._swapped) > _FEW_SWAPPED * len(self._swapped):
            said.append(_SWAPPED)
        if self._tracks > 1:
            said.append(f"has {self._tracks} audio tracks; only the first is read")
        tolerance_s = _TOLERANCE_S + 0.01 * self._read_s
        if not self._notices and self._declared_s is not None and abs(self._declared_s - self._read_s) > tolerance_s:
            said.append(f"its header says {self._declared_s:.1f} s, and {self._read_s:.1f} s were read")
        return tuple(said)

    def blocks(self) -> Iterator[NDArray[np.int16]]:
        """See `blocks`."""
        resampler: soxr.ResampleStream | None = None
        samples = np.zeros((0, 1), np.float32)
        for samples, rate_hz in self._decoded():
            self._read_s += len(samples) / rate_hz
            if self._has_words:
                self._swapped.append(looks_like(_to_int16(samples[:, 0])) is LooksLike.SWAPPED_BYTES)
            if rate_hz == self._rate_hz:
                yield _to_int16(samples)
                continue
            resampler = resampler or soxr.ResampleStream(rate_hz, self._rate_hz, samples.shape[1], dtype="float32")
            yield _to_int16(resampler.resample_chunk(samples))
        if resampler is not None:
            yield _to_int16(resampler.resample_chunk(samples[:0], last=True))

    def _decoded(self) -> Iterator[tuple[NDArray[np.float32], int]]:
        """Samples as they are in the file, float32 [samples, channels], and their rate."""
        try:
            container = self._open()
        except (av.FFmpegError, ValueError, OSError) as error:
            yield from self._by_libsndfile(_reason(error))
            return
        with closing(container):
            if not container.streams.audio:
                raise BadRecording(f"{self._path}: contains no audio track; if it has no header, set --raw")
            stream = container.streams.audio[0]
            self._tracks = len(container.streams.audio)
            self._has_words = stream.codec_context.name in _WORDS
            if self._raw is None and not self._options:
                self._declared_s = _declared_s(container, stream)
            try:
                for frame in self._in_one_format(self._frames(container, stream)):
                    samples = frame.to_ndarray().astype(np.float32, copy=False)
                    yield self._numbers(samples).reshape(-1, frame.layout.nb_channels), frame.sample_rate
            except (av.FFmpegError, ValueError, OSError) as error:
                where = f"{self._path}: cannot be read from {self._read_s:.1f} s on"
                raise BadRecording(f"{where}: {_reason(error)}") from error

    def _numbers(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """The samples, with 0 for those that are not numbers."""
        is_number = np.isfinite(samples)
        if not is_number.all():
            self._no_numbers += int(samples.size - is_number.sum())
            samples = np.where(is_number, samples, np.float32(0))
        self._peak = max(self._peak, float(np.abs(samples).max(initial=0)))
        return samples

    def _by_libsndfile(self, reason: str) -> Iterator[tuple[NDArray[np.float32], int]]:
        """The few formats that ffmpeg does not know, such as Dialogic's VOX."""
        try:
            with soundfile.SoundFile(self._path) as file:
                shape = _BLOCK, file.channels  # of a damaged file, the library counts samples that it has not written
                while len(block := file.read(out=np.zeros(shape, np.float32))):
                    yield block, file.samplerate
        except (soundfile.SoundFileError, OSError, TypeError) as error:  # TypeError: a raw file
            raise BadRecording(f"{self._path}: not a readable sound file: {reason}") from error

    def _open(self) -> av.container.InputContainer:
        options = dict(self._options)
        if self._raw is None:
            return av.open(str(self._path), options=options)
        raw = self._raw
        if raw.encoding != "g722":  # whose rate is part of the format
            options["sample_rate"] = str(raw.rate_hz)
        if raw.channels > 1:
            options["ch_layout"] = f"{raw.channels}c"
        return av.open(str(self._path), format=_RAW[raw.encoding], options=options)

    def _frames(self, container: av.container.InputContainer, stream: av.AudioStream) -> Iterator[av.AudioFrame]:
        """All frames; a packet that cannot be decoded is left out and noted."""
        for packet in container.demux(stream):
            try:
                frames = packet.decode()
            except av.FFmpegError as error:
                if not self._read_s and not isinstance(error, av.error.InvalidDataError):
                    raise
                self._damaged_s.append(self._read_s)
                continue
            for frame in frames:
                assert isinstance(frame, av.AudioFrame)
                yield frame

    def _in_one_format(self, frames: Iterator[av.AudioFrame]) -> Iterator[av.AudioFrame]:
        """The frames as interleaved float32, with the channels and the rate of the first: joined files can change."""
        to_float = AudioResampler(format="flt")  # interleaved: PyAV reads at most 8 planes of a frame
        shape: tuple[str, str, int] | None = None
        changes = 0
        for frame in frames:
            own = frame.format.name, frame.layout.name, frame.sample_rate
            if shape is not None and own != shape:
                to_float = AudioResampler(format="flt", layout=to_float.layout, rate=to_float.rate)
                changes += 1
                if changes == 1:
                    self._notices.append(f"changes to {own[1]}, {own[2]} Hz at {self._read_s:.1f} s")
            shape = own
            yield from to_float.resample(frame)

    def _look_at(self, file: BinaryIO, size: int) -> None:
        """Compare the length that a header names with the file's."""
        header = file.read(_RIFF_HEADER)
        if header[:4] == b"OggS":
            file.seek(max(0, size - _OGG_PAGE_MAX))
            flags = file.read().rpartition(b"OggS")[2][1:2]
            if not flags or not flags[0] & _OGG_LAST_PAGE:
                self._notices.append("its end is missing: the file was cut, or its recorder did not end properly")
        elif header[:4] in (b"RIFF", *_LONG_RIFF) and header[8:] == b"WAVE":
            self._look_at_chunks(file, size)

    def _look_at_chunks(self, file: BinaryIO, size: int) -> None:
        lengths: dict[bytes, int] = {}
        bytes_a_second = 0
        for name, length, begin in _chunks(file, _RIFF_HEADER):
            if name == b"ds64":
                lengths[b"data"] = int.from_bytes(file.read(16)[8:], "little")
            elif name == b"fmt ":
                bytes_a_second = int.from_bytes(file.read(12)[8:], "little")
            elif name == b"data":
                self._look_at_data(file, lengths.get(name, length), begin, size, bytes_a_second)
                return

    def _look_at_data(self, file: BinaryIO, length: int, begin: int, size: int, bytes_a_second: int) -> None:
        def seconds(count: int) -> str:
            return f"{count / bytes_a_second:.1f} s" if bytes_a_second else f"{count} bytes"

        end = begin + length
        if length in _UNFINISHED:  # the recorder did not end properly
            self._options["ignore_length"] = "1"
        elif end > size:
            self._notices.append(f"its header says {seconds(length)}, but the file ends after {seconds(size - begin)}")
        elif (second := _second_recording(file, end)) is not None:
            self._notices.append(f"a second recording of {seconds(size - second)} follows and is not read")
        elif size - end > _TOLERANCE_S * bytes_a_second and not _is_no_audio(file, end, size):
            self._notices.append(
                f"its header says {seconds(length)}, and it is read to its end: {seconds(size - begin)}"
            )
            self._options["ignore_length"] = "1"


def _is_wave(path: Path) -> bool:
    """Whether it has the header of a WAV, whatever its name."""
    with path.open("rb") as file:
        header = file.read(_RIFF_HEADER)
    return header[:4] == b"RIFF" and header[8:] == b"WAVE"


def _declared_s(container: av.container.InputContainer, stream: av.AudioStream) -> float | None:
    """The length that the header names, in s; some formats, such as WebM, only name that of the longest track."""
    if container.format.name in _WITHOUT_LENGTH:
        return None
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    return container.duration / av.time_base if container.duration and len(container.streams) == 1 else None


def _chunks(file: BinaryIO, at: int) -> Iterator[tuple[bytes, int, int]]:
    """The chunks of a WAV from here on: name, length and where it begins, with the file at its beginning."""
    file.seek(at)
    while len(header := file.read(_CHUNK_HEADER)) == _CHUNK_HEADER:
        name, length = struct.unpack("<4sI", header)
        at += _CHUNK_HEADER
        yield name, length, at
        at += length + length % 2
        file.seek(at)


def _is_name(name: bytes) -> bool:
    """Whether a chunk may be called so; audio and padding rarely look like it."""
    return name.isascii() and name.decode("ascii").isprintable()


def _second_recording(file: BinaryIO, end: int) -> int | None:
    """Where another recording begins behind the audio that ends here and the chunks that follow."""
    for at in sorted({end, end + end % 2}):
        for name, _, begin in _chunks(file, at):
            if name in _RECORDINGS:
                return begin
            if not _is_name(name):
                break
    return None


def _is_no_audio(file: BinaryIO, end: int, size: int) -> bool:
    """Whether the audio ends here: a chunk such as LIST follows, or zeros up to the end of the file."""
    file.seek(end + end % 2)
    header = file.read(_CHUNK_HEADER)
    name, length = header[:4], int.from_bytes(header[4:], "little")
    if _is_name(name):
        return file.tell() + length <= size + 1
    file.seek(end)
    return all(block == bytes(len(block)) for block in iter(partial(file.read, _BLOCK), b""))


def _to_int16(samples: NDArray[np.float32]) -> NDArray[np.int16]:
    return np.clip(np.round(samples * _FULL_SCALE), -_FULL_SCALE, _FULL_SCALE - 1).astype(np.int16)


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
