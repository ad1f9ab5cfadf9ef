"""`callmood demo` with the servers of the tests."""

import os
import re
import signal
import subprocess
import sys

import pytest
from browsing import answer

pytestmark = [pytest.mark.nightly, pytest.mark.timeout(300)]


def test_sigterm_ends_the_demo_its_worker_and_its_page(stack, redis_prefix, topic, wait_until):
    """A program that starts it, and ends it by SIGTERM, leaves no process behind."""
    settings = {
        "KAFKA__BOOTSTRAP_SERVERS": stack.bootstrap_servers,
        "KAFKA__AUDIO_TOPIC": topic(),
        "KAFKA__DEAD_LETTER_TOPIC": topic(),
        "REDIS__URL": stack.redis_url,
        "REDIS__PREFIX": redis_prefix,
    }
    environment = os.environ | {f"CALLMOOD_{name}": value for name, value in settings.items()} | {"COLUMNS": "200"}
    command = [sys.executable, "-m", "callmood", "demo"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True) as demo:
        assert demo.stdout is not None
        address = next(found[0] for line in demo.stdout if (found := re.search(r"http://127.0.0.1:\d+/", line)))
        assert answer(address)[0] == 200
        demo.send_signal(signal.SIGTERM)
        assert demo.wait(60) in {1, 130}  # while calls are shown, and before
    assert answer(address)[0] == 0
    assert wait_until(lambda: not _processes_of(demo.pid))


def _processes_of(session):
    listed = subprocess.run(["ps", "-eo", "sid=,stat="], capture_output=True, text=True, check=True).stdout.splitlines()
    return [line for line in listed if line.split()[0] == str(session) and "Z" not in line]
