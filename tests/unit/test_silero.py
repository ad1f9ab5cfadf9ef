"""The network of the speech check: the numbers of its package, from the weights of its package."""

import importlib.util
import pickle
import sys
import types
import warnings
import zipfile
from pathlib import Path

import pytest
import torch

from callmood.worker.errors import ModelError
from callmood.worker.model import silero

PACKAGE = Path(importlib.util.find_spec("silero_vad").submodule_search_locations[0])


def noise(samples):
    """Loud and quiet, white and brown."""
    white = torch.randn(samples, generator=torch.Generator().manual_seed(samples)) * 0.1
    return white * torch.linspace(0, 1, samples) + white.cumsum(0) / 100


@pytest.fixture(scope="module")
def original():
    """The package's own network, one frame at a time, as torch still runs it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch is about to drop TorchScript, which is why it is not used
        network = torch.jit.load(str(PACKAGE / "data" / "silero_vad.jit"))

    def run(waveform):
        network.reset_states()
        padded = torch.nn.functional.pad(waveform, (0, -waveform.numel() % silero.FRAME))
        return torch.cat([network(frame[None], silero.RATE_HZ)[0] for frame in padded.split(silero.FRAME)])

    return run


@pytest.mark.parametrize("samples", [1, silero.FRAME, 1_000, 20_000])
def test_all_frames_at_once_are_as_each_alone(original, samples):
    """The probabilities are those of the package's own code, of any length, within rounding."""
    waveform = noise(samples)
    with torch.inference_mode():
        found, expected = silero.load()(waveform), original(waveform)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_the_package_is_not_imported():
    """Its code would bring what it imports into the inference process: only its files are read."""
    silero.load()
    assert "silero_vad" not in sys.modules


def test_a_missing_package_is_named(monkeypatch):
    """The error says what to install, or what to switch off."""
    monkeypatch.setattr(silero, "find_spec", lambda _: None)
    with pytest.raises(ModelError, match=r"install it, or set model\.speech_check to false"):
        silero.load()


def other_archive(path, content):
    """A TorchScript archive with another pickle."""
    path.mkdir(parents=True)
    with zipfile.ZipFile(path / "silero_vad.jit", "w") as archive:
        archive.writestr("other/data.pkl", content)
    return path.parent


@pytest.mark.parametrize(
    "content",
    [pickle.dumps({}), pickle.dumps({"_model_8k": {"stft": {}}}), b"no pickle", pickle.dumps(print, protocol=2)],
    ids=["empty", "another network", "no pickle", "a function"],
)
def test_other_weights_are_refused(content, tmp_path, monkeypatch):
    """A file that holds something else is named, and nothing in it is run."""
    package = other_archive(tmp_path / "data", content)
    found = types.SimpleNamespace(submodule_search_locations=[str(package)])
    monkeypatch.setattr(silero, "find_spec", lambda _: found)
    with pytest.raises(ModelError, match=r"silero_vad\.jit: not the weights that the speech check needs"):
        silero.load()
