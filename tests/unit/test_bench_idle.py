"""The benchmark of an idle process: it counts the loop's turns and the CPU time of the process."""

import argparse
import time
from contextlib import contextmanager
from types import SimpleNamespace

from callmood.bench import idle


class _Loop:
    """Gets its partition in the third turn; a turn takes 10 ms, in which it waits."""

    def __init__(self):
        self.turns = 0

    def turn(self):
        self.turns += 1
        time.sleep(0.01)

    def status(self):
        return SimpleNamespace(partitions=int(self.turns > 2))


def test_the_time_before_the_first_partition_does_not_count(monkeypatch, capsys):
    """Turns are counted from the assignment on, and the share of a core is printed with them."""
    loop = _Loop()

    @contextmanager
    def opened(*_):
        yield loop

    monkeypatch.setattr(idle, "open_ingest", opened)
    assert idle.run(idle.add_arguments(argparse.ArgumentParser()).parse_args(["--seconds", "0.1"])) == 0
    assert loop.turns > 3
    assert "% of a core" in capsys.readouterr().out


def test_the_result_is_a_share_of_a_core():
    """Both figures are for each second that was measured."""
    assert str(idle.Idle(20.0, 0.1, 50)) == "0.50 % of a core, 2.5 turns a second, over 20 s"
