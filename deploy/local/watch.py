"""The watcher process of a nursery: when its parent ends, it kills the parent's servers and removes their directory.

It leads the process group that the servers join, so the system cannot reuse the group's id while it runs. The end of
its standard input shows that the parent ended, even by `kill -9`. One byte there means that the parent has cleaned up.
"""

import os
import shutil
import signal
import sys
import time

_ATTEMPTS = 20
_PAUSE_S = 0.1


def main(directory: str) -> None:
    """Wait for the parent; then kill the process group and remove `directory`."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    if sys.stdin.buffer.read(1):
        return
    group = os.getpgrp()
    if os.fork() > 0:
        time.sleep(_ATTEMPTS * _PAUSE_S)  # the child's SIGKILL ends this wait
        return
    os.setpgid(0, 0)
    os.killpg(group, signal.SIGKILL)
    for _ in range(_ATTEMPTS):
        shutil.rmtree(directory, ignore_errors=True)
        if not os.path.lexists(directory):
            break
        time.sleep(_PAUSE_S)  # a dying server may still have written


if __name__ == "__main__":
    main(sys.argv[1])
