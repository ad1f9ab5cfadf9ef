"""The supervisor, where it cannot start."""

import os
import socket
import subprocess
import sys


def test_a_taken_health_port_ends_the_worker():
    """One line names the setting, and no process stays behind to work without probes and without a supervisor."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        settings = {"HOST": "127.0.0.1", "PORT": str(taken.getsockname()[1])}
        done = subprocess.run(
            [sys.executable, "-m", "callmood", "worker"],
            env=os.environ | {f"CALLMOOD_WORKER__HEALTH_{name}": value for name, value in settings.items()},
            capture_output=True,
            text=True,
            timeout=45,
            check=False,
        )
    assert done.returncode == 2
    assert "CALLMOOD_WORKER__HEALTH_PORT" in done.stderr
    assert "Traceback" not in done.stderr
