"""The names of processes."""

import multiprocessing

from callmood.worker.run.wiring import supervisor_id


def _tell(answers):
    answers.put(supervisor_id())


def _names(count):
    """The names that this many processes in a row have for the process that started them."""
    spawn = multiprocessing.get_context("spawn")
    answers = spawn.SimpleQueue()
    for _ in range(count):
        process = spawn.Process(target=_tell, args=(answers,))
        process.start()
        process.join()
    return [answers.get() for _ in range(count)]


def test_a_restarted_process_has_the_name_of_its_predecessor():
    """It takes over what that left open; the name says nothing else than who started both."""
    one, other = _names(2)
    assert one == other
    assert one != supervisor_id()
    assert one.isalnum()
