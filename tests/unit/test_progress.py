"""Whether the work moves on."""

from callmood.worker.commits import TopicPartition
from callmood.worker.run.progress import Progress

ONE, OTHER = TopicPartition("audio", 0), TopicPartition("audio", 1)


def test_a_partition_that_is_read_up_does_not_stand_still():
    """Without anything unread, however long the watermark rests, nothing is stuck; the clock starts with the lag."""
    progress = Progress()
    progress.note(ONE, 5, 0.0)
    assert progress.stuck_s({ONE: 0}, 100.0) == 0
    assert progress.stuck_s({ONE: 3}, 130.0) == 30


def test_a_watermark_that_moves_starts_the_clock_anew():
    """Only a standstill counts, and committing the same watermark again is one."""
    progress = Progress()
    progress.note(ONE, 5, 0.0)
    progress.note(ONE, 5, 10.0)
    assert progress.stuck_s({ONE: 3}, 20.0) == 20
    progress.note(ONE, 6, 25.0)
    assert progress.stuck_s({ONE: 3}, 30.0) == 5


def test_the_partition_that_stands_longest_counts():
    """One that moves does not hide one that does not; one that was given away counts no more."""
    progress = Progress()
    progress.note(ONE, 5, 0.0)
    progress.note(OTHER, 7, 0.0)
    progress.note(OTHER, 8, 40.0)
    assert progress.stuck_s({ONE: 1, OTHER: 1}, 50.0) == 50
    progress.forget(ONE)
    assert progress.stuck_s({OTHER: 1}, 50.0) == 10


def test_a_lag_that_is_not_known_yet_is_no_standstill():
    """Before the first fetch nobody knows whether anything is unread."""
    progress = Progress()
    progress.note(ONE, 5, 0.0)
    assert progress.stuck_s({ONE: None}, 100.0) == 0
