"""How far a long measurement is."""

from callmood.bench.progress import Progress


def test_a_run_says_how_far_it_is(capsys):
    """At each tenth, once, and not for each record."""
    progress = Progress("read", 1_000)
    for count in range(1_000):
        progress.reach(count)
    told = capsys.readouterr().err.splitlines()
    assert [line.split(",")[0] for line in told] == [f"read: {tenth}00 of 1" for tenth in range(1, 10)]
