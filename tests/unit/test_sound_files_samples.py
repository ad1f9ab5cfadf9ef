"""Sound files whose samples a program has written wrongly."""

import struct

import numpy as np
import pytest
import soundfile

from callmood.worker.commands.sound_files import blocks, probe

RATE_HZ = 8000


def vowel(seconds=4):
    """A voice with a pause, not in step with the samples; int16 [samples]."""
    t = np.arange(seconds * RATE_HZ) / RATE_HZ
    sound = sum(np.sin(2 * np.pi * 137.3 * k * t) / k for k in range(1, 12)) * (t < seconds / 2)
    return np.round(4_000 * sound + np.random.default_rng(1).normal(0, 10, t.size)).astype(np.int16)


@pytest.mark.parametrize(("order", "is_told"), [("<i2", False), (">i2", True)])
@pytest.mark.parametrize("name", ["call.sln", "call.sln16", "call.wav"])
def test_swapped_bytes_are_told(tmp_path, name, order, is_told):
    """A voice in the other byte order gives a notice: in a file without a header, and where the header is wrong."""
    path, data = tmp_path / name, vowel().astype(order).tobytes()
    header = b"RIFF" + struct.pack("<I", 36 + len(data)) + b"WAVEfmt "
    header += struct.pack("<IHHIIHH", 16, 1, 1, RATE_HZ, 2 * RATE_HZ, 2, 16) + b"data" + struct.pack("<I", len(data))
    path.write_bytes((header if name.endswith("wav") else b"") + data)
    assert any("swapped" in notice for notice in probe(path, RATE_HZ).notices) is is_told


@pytest.mark.parametrize(
    ("samples", "notice"),
    [
        (vowel().astype(np.float32), "times full scale and are clipped: scale them to -1 to 1"),
        (np.where(np.arange(4 * RATE_HZ) % 999 == 5, np.nan, vowel() / 32768), "33 of its samples are not numbers"),
        (np.where(np.arange(4 * RATE_HZ) % 999 == 5, np.inf, vowel() / 32768), "33 of its samples are not numbers"),
        (vowel() / 8192, None),
    ],
)
@pytest.mark.parametrize("rate_hz", [RATE_HZ, 16_000])
def test_samples_that_a_program_has_written_wrongly_are_told(tmp_path, samples, notice, rate_hz):
    """Floating point without a scale or without a number; nothing else of the file is lost. A loud one is only loud."""
    soundfile.write(tmp_path / "call.wav", samples, RATE_HZ, subtype="FLOAT")
    found = probe(tmp_path / "call.wav", rate_hz)
    assert found.samples == pytest.approx(4 * rate_hz, abs=2)
    assert [notice in said for said in found.notices] == ([True] if notice else [])
    if notice is None or "numbers" in notice:
        wrong = (
            np.abs(
                np.concatenate(list(blocks(tmp_path / "call.wav", RATE_HZ)))[:, 0]
                - np.nan_to_num(samples, posinf=0) * 32768
            )
            > 4
        )
        assert wrong.sum() == (np.abs(np.nan_to_num(samples, posinf=0)) > 1).sum()
