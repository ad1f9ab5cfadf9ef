"""The commands' output, read by other programs."""

import os
import subprocess
import sys
from pathlib import Path

CALLS = Path(__file__).parents[2] / "examples" / "calls"


def test_a_closed_pipe_ends_a_command_quietly():
    """A reader that has seen enough, as `head` does, ends the command without a traceback."""
    read_end, write_end = os.pipe()
    os.close(read_end)
    try:
        ended = subprocess.run(
            [sys.executable, "-m", "callmood", "analyze", CALLS / "panne.flac"],
            stdout=write_end,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            timeout=150,
        )
    finally:
        os.close(write_end)
    assert ended.returncode == 141
    assert ended.stderr == ""
