"""The benchmark of a live call's memory: what is taken before each look at it."""

from callmood.bench import memory


def test_all_calls_speak_then_are_quiet_then_one_goes_on():
    """Each call sends two seconds of speech and two of noise, as one stream; then only another call sends records."""
    spoken, quiet, others = ([list(records) for records in part] for part in memory.parts(3, 2))
    assert [len(records) for records in spoken + quiet] == [3] * 20
    seqs = [dict(records[0].headers)["seq"] for records in spoken + quiet]
    assert seqs == [str(seq).encode() for seq in range(20)]
    assert {record.key for records in others for record in records} == {b"other"}
    offsets = [record.position.offset for records in spoken + quiet + others for record in records]
    assert offsets == sorted(set(offsets))
    since_ms = others[-1][0].timestamp_ms - quiet[-1][-1].timestamp_ms
    assert since_ms > memory.STALL_MS


def test_no_call_ends_while_its_memory_is_measured():
    """Ten calls of a second are all live at the end, which `measure` requires."""
    assert memory.measure(10, 1).calls == 10


def test_the_memory_of_a_process_is_that_of_another_one():
    """The benchmark may have loaded torch, which an ingest process does not load."""
    assert 20 < memory.process_mb() < 200
