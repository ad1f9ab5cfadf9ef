"""The voice detector's memory."""

import msgpack
import numpy as np
import pytest

from callmood.worker.speech import vad as module
from callmood.worker.speech.vad import VAD_VERSION, Vad, self_test


def _frames(rate_hz, count):
    """Tones in noise, on and off every 0.8 s, as 20 ms frames of S16LE."""
    random = np.random.default_rng(rate_hz)
    size = rate_hz // 50
    time = np.arange(count * size) / rate_hz
    voiced = (time // 0.8 % 2) * (np.sin(2 * np.pi * 180 * time) + np.sin(2 * np.pi * 900 * time)) * 4000
    pcm = (voiced + random.normal(0, 60, time.size)).astype("<i2")
    return [frame.tobytes() for frame in pcm.reshape(-1, size)]


@pytest.mark.parametrize("rate_hz", [8000, 16000, 48000])
def test_a_loaded_dump_goes_on_exactly(rate_hz):
    """A detector loaded from a dump answers as the original does, at every rate, and ends in the same state."""
    frames = _frames(rate_hz, 1200)
    original = Vad(2, rate_hz)
    for frame in frames[:333]:
        original.is_speech(frame)
    copy = Vad.load(2, rate_hz, msgpack.unpackb(msgpack.packb(original.dump())))
    answers = [original.is_speech(frame) for frame in frames[333:]]
    assert [copy.is_speech(frame) for frame in frames[333:]] == answers
    assert copy.dump() == original.dump()
    assert set(answers) == {True, False}


def test_a_fresh_detector_is_another_one():
    """Without its memory a detector answers differently: the dump is needed."""
    frames = _frames(8000, 1200)
    original = Vad(2, 8000)
    answers = [original.is_speech(frame) for frame in frames][37:]
    fresh = Vad(2, 8000)
    assert [fresh.is_speech(frame) for frame in frames[37:]] != answers


def test_the_mode_is_part_of_the_memory():
    """A loaded detector keeps the aggressiveness of the dump."""
    strict = Vad(3, 8000)
    assert Vad.load(0, 8000, strict.dump()).dump() == strict.dump()


@pytest.mark.parametrize("blob", [b"", bytes(736), b"*" * 735])
def test_a_foreign_blob_is_refused(blob):
    """Bytes that are no dump of this release never reach the library's memory."""
    with pytest.raises(ValueError, match="not a state"):
        Vad.load(2, 8000, blob)


def test_the_self_test_passes():
    """The installed release keeps its state where it is expected."""
    assert self_test()
    assert "2.0.14.post1" in VAD_VERSION


def test_another_release_is_never_copied(monkeypatch):
    """With a release whose layout is unknown there are no dumps, and the self-test says so."""
    dump = Vad(2, 8000).dump()
    monkeypatch.setattr(module.webrtcvad, "__version__", "2.0.15")
    assert not self_test()
    assert Vad(2, 8000).dump() == b""
    with pytest.raises(ValueError, match="not a state"):
        Vad.load(2, 8000, dump)


@pytest.mark.plain_python
def test_the_self_test_sees_a_lossy_copy(monkeypatch):
    """A copy that forgets fails the self-test."""
    monkeypatch.setattr(Vad, "load", classmethod(lambda cls, mode, rate_hz, _: cls(mode, rate_hz)))
    assert not self_test()


@pytest.mark.plain_python
def test_the_self_test_sees_another_layout(monkeypatch):
    """A memory that does not end where it should fails the self-test, before anything is written to it."""
    monkeypatch.setattr(module, "_STATE_BYTES", 600)
    assert not self_test()
