"""The example calls in the repository."""

import json
import tomllib
from pathlib import Path

import numpy as np
import pytest
import soundfile

from callmood.schemas.common import Emotion, Role
from callmood.training.synthetic import calls, synthesize
from callmood.worker.errors import ConfigurationError
from callmood.worker.g711 import PCMU_TO_S16

FOLDER = Path(__file__).parents[2] / "examples" / "calls"
SCRIPTS = sorted(FOLDER.glob("*.toml"))


def test_there_are_four_and_they_are_small():
    """Four calls, 1.5 MB at most together."""
    assert [path.stem for path in SCRIPTS] == ["billing", "cancellation", "lieferung", "panne"]
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 1_500_000


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_a_call_is_telephone_audio_of_both_parties(path: Path):
    """Stereo, 8 kHz, 30 to 60 s, and every sample a value of mu-law."""
    audio, rate_hz = soundfile.read(path.with_suffix(".flac"), dtype="int16")
    assert (rate_hz, audio.shape[1]) == (8000, 2)
    assert 30 <= len(audio) / rate_hz <= 60
    assert set(np.unique(audio)) <= set(PCMU_TO_S16.tolist())


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_speech_is_where_the_times_say(path: Path):
    """Each turn is loud on its own channel, and each channel is quiet where its party is silent."""
    audio, rate_hz = soundfile.read(path.with_suffix(".flac"))
    turns = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    talking = np.zeros(audio.shape, dtype=bool)
    for turn in turns:
        span = slice(turn["start_ms"] * rate_hz // 1000, turn["end_ms"] * rate_hz // 1000)
        channel = calls.CHANNELS.index(Role(turn["role"]))
        talking[span, channel] = True
        assert 20 * np.log10(audio[span, channel].std()) == pytest.approx(-22, abs=1.5)
    for channel in range(2):
        assert 20 * np.log10(audio[~talking[:, channel], channel].std()) < -55


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_nobody_in_a_call_was_trained_on(path: Path):
    """Both voices are of the test split."""
    held_out = tomllib.loads(synthesize.SOURCE.read_text(encoding="utf-8"))["variants"]["test"]
    assert {voice.variant for voice in calls.read(path).voices} <= set(held_out)


def test_the_customers_go_through_all_four_emotions():
    """Together the calls show every class on the customer's side, and every call more than one."""
    heard = [{turn.emotion for turn in calls.read(path).turns if turn.role == Role.CUSTOMER} for path in SCRIPTS]
    assert all(len(emotions) > 1 for emotions in heard)
    assert set().union(*heard) == set(Emotion)


@pytest.mark.usefixtures("espeak")
def test_a_script_is_spoken_as_written(tmp_path: Path):
    """Turns follow each other by their waits, a negative wait overlaps, and the same script gives the same file."""
    script = """
        seed = 1
        customer = { language = "en", variant = "f2" }
        agent = { language = "en", variant = "ed" }
        turns = [
            { role = "agent", emotion = "neutral", wait_ms = 200, text = ["How can I help you?"] },
            { role = "customer", emotion = "anger", wait_ms = -300, text = ["No."] },
        ]
    """
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "call.toml").write_text(script)
        (made,) = calls.make_all(tmp_path / name)
    turns = json.loads(made.with_suffix(".json").read_text())
    assert turns[0]["start_ms"] == 200
    assert turns[1]["start_ms"] == pytest.approx(turns[0]["end_ms"] - 300, abs=1)
    assert made.read_bytes() == (tmp_path / "a" / "call.flac").read_bytes()


def test_a_wrong_script_is_refused(tmp_path: Path):
    """A script without voices or with an unknown emotion is an error that names the file."""
    path = tmp_path / "call.toml"
    path.write_text(SCRIPTS[0].read_text(encoding="utf-8").replace('"anger"', '"rage"'))
    with pytest.raises(ConfigurationError, match=r"call\.toml.*rage"):
        calls.read(path)
