"""Real inference processes for the tests of their contract."""
# ruff: noqa: PLC0415 - the model's libraries take seconds to import: only the tests that need them pay

import os
import shutil
import signal
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import forked
import pytest

LIMIT_S = 120.0  # a process imports torch first: seconds on an idle machine, a minute on a busy one


class InferenceProcess:
    """A started inference process and the clients that a test opens to it."""

    def __init__(self, path, folder, **settings):
        from callmood.worker.inference.serve import serve
        from callmood.worker.settings import ModelSettings

        folder.mkdir(exist_ok=True)
        self.address = f"ipc://{folder}/socket"
        self._clients = []
        settings = {"speech_check": False, **settings}  # most tests ask about noise
        configured = ModelSettings(path=str(path), device="cpu", threads=1, **settings)
        self.process = forked.start(serve, configured, self.address, daemon=True)

    def client(self, **arguments):
        """A client of its own; closed when the test is over."""
        from callmood.worker.inference.submit import InferenceClient

        self._clients.append(InferenceClient(self.address, **arguments))
        return self._clients[-1]

    def close_clients(self):
        """Close what the test opened."""
        for client in self._clients:
            client.close()
        self._clients.clear()

    def send(self, number):
        """Send a signal."""
        os.kill(self.process.pid, number)

    def exit_code(self, timeout_s=LIMIT_S):
        """Wait for the end."""
        self.process.join(timeout_s)
        return self.process.exitcode

    @staticmethod
    def wait_until_warm(client, timeout_s=LIMIT_S):
        """Wait until the client knows the model."""
        deadline_s = time.monotonic() + timeout_s
        while client.model is None and time.monotonic() < deadline_s:
            client.collect()
            time.sleep(0.01)
        assert client.model is not None


@pytest.fixture(scope="session")
def random_bundle(tmp_path_factory):
    """A small model with random weights whose head prefers different emotions for different sounds."""
    import torch
    import transformers

    from callmood.worker.model.model import EmotionModel, Release, save_bundle

    torch.manual_seed(3)
    config = transformers.HubertConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        conv_dim=[8] * 7,
        num_conv_pos_embeddings=8,
        num_conv_pos_embedding_groups=2,
    )
    model = EmotionModel.new(config.to_dict(), normalize=False)
    with torch.no_grad():
        model.head.linear.weight.mul_(10)
    folder = tmp_path_factory.mktemp("bundle")
    save_bundle(model, folder, Release("random", "7", "none"))
    return folder


@pytest.fixture(scope="session")
def _shared_inference(random_bundle):
    folder = Path(tempfile.mkdtemp(prefix="callmood-"))  # pytest's own folders are too long for a socket's address
    started = InferenceProcess(random_bundle, folder, batch_seconds=15.0)
    yield started
    started.process.kill()
    shutil.rmtree(folder)


@pytest.fixture
def inference(_shared_inference):
    """A process that many tests share; none may end it."""
    yield _shared_inference
    _shared_inference.close_clients()


@pytest.fixture
def start_inference():
    """Starts a process of the test's own: `start_inference(path, **settings)`."""
    with _starting() as start:
        yield start


@pytest.fixture(scope="module")
def start_shared_inference():
    """As `start_inference`, for processes that the tests of a file share: each takes seconds to import torch."""
    with _starting() as start:
        yield start


@contextmanager
def _starting():
    folder = Path(tempfile.mkdtemp(prefix="callmood-"))
    started = []

    def start(path, **settings):
        started.append(InferenceProcess(path, folder / f"{len(started)}", **settings))
        return started[-1]

    yield start
    for one in started:
        one.close_clients()
        if one.process.is_alive():
            one.send(signal.SIGCONT)
            one.process.kill()
            one.process.join()
    shutil.rmtree(folder)
