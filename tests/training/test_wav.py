"""Plain WAV files whose header is wrong."""

from pathlib import Path

import pytest

from callmood.training import wav

SOUND = bytes(range(1, 241)) * 40
"""0.6 s at 8 kHz."""
SIZE = 36
"""What RIFF's size counts of a header."""


@pytest.fixture
def header(tmp_path: Path) -> bytes:
    """What stands between RIFF's size and that of the sound."""
    wav.write(tmp_path / "whole.wav", 8000, SOUND)
    return (tmp_path / "whole.wav").read_bytes()[8:40]


def with_sizes(path: Path, header: bytes, size: int, claimed: int, content: bytes) -> Path:
    """A file that states these two sizes."""
    path.write_bytes(b"RIFF" + size.to_bytes(4, "little") + header + claimed.to_bytes(4, "little") + content)
    return path


@pytest.mark.parametrize(
    ("size", "claimed", "held", "frames"),
    [
        (0xFFFFFFFF, 0xFFFFFFFF, 9600, 4800),
        (0xFFFFFFFF, 0x7FFFFFFF, 9599, 4799),
        (SIZE + 9600, 9600, 3200, 1600),
        (SIZE, 0, 9600, 4800),
        (SIZE + 9600, 4800, 9600, 2400),
        (SIZE, 0, 0, 0),
        (0, 0, 9600, 4800),
        (0, 9600, 9600, 4800),
        (0xFFFFFFFF, 0, 9600, 4800),
    ],
)
def test_a_wav_is_as_long_as_its_bytes(tmp_path: Path, header: bytes, size: int, claimed: int, held: int, frames: int):
    """A header that claims more than the file holds, or nothing at all, is not believed; half a sample is left out."""
    path = with_sizes(tmp_path / "a.wav", header, size, claimed, SOUND[:held])
    assert wav.read(path) == (wav.Sound(8000, 1, wav.SAMPLE_BYTES, frames), SOUND[: 2 * frames])
    assert wav.measure(path).frames == frames


def test_what_follows_a_closed_recording_without_sound_is_no_sound(tmp_path: Path, header: bytes):
    """A recorder that was stopped at once has written its metadata behind the 0 bytes of sound."""
    metadata = b"LIST" + len(SOUND).to_bytes(4, "little") + SOUND
    path = with_sizes(tmp_path / "a.wav", header, SIZE + len(metadata), 0, metadata)
    assert wav.measure(path).frames == 0
    assert wav.read(path)[1] == b""
