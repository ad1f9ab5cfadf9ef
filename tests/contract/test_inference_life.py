"""The life of the inference process: its start, its reports, and its end."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from callmood.schemas.common import Encoding, Role
from callmood.worker.records import Acoustics, Cut, Position, Utterance

pytestmark = pytest.mark.timeout(400)  # the first process imports torch, on a busy machine for minutes

SETTINGS = "ModelSettings(path=sys.argv[1], device='cpu', threads=1)"


def long_utterance(seconds):
    return Utterance(
        id="long",
        call_id="call",
        stream="0",
        channel=0,
        role=Role.CUSTOMER,
        start_ms=0,
        end_ms=seconds * 1000,
        capture_end_ms=0,
        encoding=Encoding.PCMU,
        rate_hz=8_000,
        audio=bytes(range(256)) * (seconds * 8_000 // 256),
        cut=Cut.FORCED,
        missing_ms=0,
        overlap_ms=0,
        acoustics=Acoustics(-20.0, 20.0, 0.0, 4_000),
        first=Position("t", 0, 0),
        last=Position("t", 0, 1),
        withheld=None,
    )


def eventually(client, healthy, *, timeout_s=120.0):
    """Whether the client's view of the process becomes `healthy` in time."""
    deadline_s = time.monotonic() + timeout_s
    while time.monotonic() < deadline_s:
        client.collect()
        if client.healthy(time.monotonic()) == healthy:
            return True
        time.sleep(0.02)
    return False


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_sigterm_ends_it_cleanly(start_inference, random_bundle):
    """A warm process that is told to stop ends with code 0, and Ctrl-C alone does not end it."""
    inference = start_inference(random_bundle)
    inference.wait_until_warm(inference.client())
    inference.send(signal.SIGINT)
    assert inference.exit_code(timeout_s=1.0) is None
    inference.send(signal.SIGTERM)
    assert inference.exit_code() == 0


def test_a_model_that_cannot_be_loaded_ends_it(start_inference, tmp_path):
    """Without a model there is no process that looks alive."""
    assert start_inference(tmp_path).exit_code() == 1


def test_the_unexpected_ends_it(start_inference, random_bundle):
    """What no code of ours sends makes the process end with a non-zero code instead of going on in an unknown state."""
    inference = start_inference(random_bundle)
    client = inference.client()
    inference.wait_until_warm(client)
    client._socket.send(b"\x93not ours")
    assert inference.exit_code() == 1


def test_it_ends_with_its_parent(random_bundle):
    """A process whose supervisor was killed does not stay behind with the GPU."""
    with tempfile.TemporaryDirectory(prefix="callmood-") as folder:
        program = (
            "import multiprocessing, sys, time\n"
            "from callmood.worker.inference.serve import serve\n"
            "from callmood.worker.settings import ModelSettings\n"
            "if __name__ == '__main__':\n"
            "    child = multiprocessing.get_context('spawn').Process(\n"
            f"        target=serve, args=({SETTINGS}, sys.argv[2]))\n"
            "    child.start()\n"
            "    print(child.pid, flush=True)\n"
            "    time.sleep(60)\n"
        )
        script = Path(folder, "parent.py")
        script.write_text(program)
        command = [sys.executable, str(script), str(random_bundle), f"ipc://{folder}/socket"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path.cwd()) as parent:
            pid = int(parent.stdout.readline())
            deadline_s = time.monotonic() + 120
            while not Path(folder, "socket").exists() and time.monotonic() < deadline_s:
                time.sleep(0.02)
            assert is_running(pid)
            parent.kill()
        while is_running(pid) and time.monotonic() < deadline_s:
            time.sleep(0.02)
        ended = not is_running(pid)
        if not ended:
            os.kill(pid, signal.SIGKILL)
        assert ended


def test_a_frozen_process_is_not_healthy(inference):
    """When the beats stop, the client says so, and takes it back when they go on."""
    client = inference.client(stall_s=2.0)
    inference.wait_until_warm(client)
    assert client.healthy(time.monotonic())
    inference.send(signal.SIGSTOP)
    assert eventually(client, healthy=False)
    inference.send(signal.SIGCONT)
    assert eventually(client, healthy=True)


def test_a_batch_that_does_not_end_is_not_healthy(start_inference, random_bundle):
    """Beats alone do not count as life: what counts is the thread that runs the model."""
    inference = start_inference(random_bundle)
    client = inference.client(stall_s=2.0)
    inference.wait_until_warm(client)
    client.submit("long", long_utterance(seconds=1_200))
    assert eventually(client, healthy=False)
    inference.send(signal.SIGTERM)


@pytest.mark.parametrize("module", ["callmood.worker.inference.submit", "callmood.worker.inference.serve"])
def test_the_clients_process_holds_no_model_libraries(module):
    """An ingest process that imports its client does not pay for torch and transformers."""
    program = f"import sys, {module}; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
