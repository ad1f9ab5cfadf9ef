"""CPU time of a process and those below it."""

import os

from callmood.bench import process_tree


def test_a_process_is_counted_with_those_below_it(tmp_path):
    """10 has a child and a grandchild; 20 is another's, and a process that ended meanwhile has no file."""
    for pid, parent, user, system in ((10, 1, 100, 50), (11, 10, 20, 0), (12, 11, 3, 2), (20, 1, 1_000, 0)):
        (tmp_path / str(pid)).mkdir()
        fields = ["S", str(parent), *["0"] * 9, str(user), str(system), "0"]
        (tmp_path / str(pid) / "stat").write_text(f"{pid} (a (b) c) {' '.join(fields)}")
    ticks = os.sysconf("SC_CLK_TCK")
    assert process_tree.cpu_s(10, tmp_path) == 175 / ticks
    assert process_tree.cpu_s(12, tmp_path) == 5 / ticks
    assert process_tree.cpu_s(99, tmp_path) == 0


def test_this_process_has_used_cpu_time():
    """The numbers are those of the operating system."""
    assert process_tree.cpu_s(os.getpid()) > 0
