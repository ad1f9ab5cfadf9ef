"""What a number of calls needs, by hand from figures that are easy to compute with."""

import ast
from datetime import date

import pytest

from callmood.worker.commands import capacity
from callmood.worker.commands.capacity import Load, Plan
from callmood.worker.errors import ConfigurationError

FROM = {"command": "callmood bench x", "machine": "a machine", "date": date(2026, 1, 1)}
FIGURES = capacity.Figures(
    ingest=capacity.Ingest(**FROM, one_channel_us={20: 100, 200: 280}, two_channels_us={20: 200, 200: 380}),
    calls=capacity.Calls(**FROM, call_kb=50, process_mb=100),
    kafka=capacity.Kafka(**FROM, overhead_bytes=100),
    redis=capacity.Redis(
        **FROM, call_bytes=6_000, utterance_bytes=2_000, entry_bytes=1_000, server_us=100, changes_per_s=0.5,
        utterances_per_min=12,
    ),
    engine=capacity.Engine(**FROM, base=10, large=3),
)  # fmt: skip


def values(load):
    """What formulas compute, and what goes into them, by name."""
    steps = Plan(load, FIGURES).steps
    return {name: value for step in steps for name, value in [*step.given.items(), (step.formula.name, step.value)]}


@pytest.mark.parametrize(
    ("load", "expected"),
    [
        (
            Load(1_000, chunk_ms=20, gpu="h100", seconds_per_second=300),
            {"records_per_s": 50_000, "ingest_cores": 10, "ingest_processes": 15, "audio_per_s": 400, "gpus": 2,
             "workers": 2, "replicas": 3, "processes_per_worker": 8, "cores_per_worker": 9, "partitions": 48,
             "calls_per_process": 63},
        ),
        (
            Load(1_000, chunk_ms=20, is_separate=True, gpu="h100", seconds_per_second=300),
            {"records_per_s": 100_000, "record_us": 100, "ingest_cores": 10, "calls_per_partition": 42},
        ),
        (
            Load(1_000, chunk_ms=110, legs=1, gpu="a", seconds_per_second=1e6),
            {"record_us": 190, "gpus": 1, "workers": 1, "replicas": 2, "kafka_mb_per_s": pytest.approx(8.909, 0.01)},
        ),
        (
            Load(100, model="base"),
            {"ingest_processes": 1, "model_cores": 6, "workers": 1, "threads": 6, "cores_per_worker": 7,
             "partitions": 12, "memory_mib": 4_319},
        ),
        (
            Load(100, model="large", cores=8, spare=0),
            {"model_cores": 20, "workers": 3, "replicas": 3, "threads": 7, "cores_per_worker": 8},
        ),
        (
            Load(1_000, call_s=600, gpu="a", seconds_per_second=600),
            {"bytes_per_call": 246_000, "redis_live_mb": 246, "redis_ended_mb": 1_476, "redis_streams_mb": 100,
             "redis_maxmemory_mb": 3_644, "redis_cores": pytest.approx(0.05)},
        ),
        (Load(100, channels_per_core=1_000, chunk_ms=200), {"record_us": 400}),
        (Load(1_000, redis_us=1_000), {"redis_cores": 0.5}),
    ],
)  # fmt: skip
def test_a_plan_follows_from_the_figures(load, expected):
    """Each value is what the formulas give by hand; a figure of the user takes the place of the measured one."""
    found = values(load)
    assert {name: found[name] for name in expected} == expected


@pytest.mark.parametrize(("chunk_ms", "expected"), [(1, 100), (20, 100), (110, 190), (200, 280), (1_000, 1_400)])
def test_records_between_the_measured_lengths_are_interpolated(chunk_ms, expected):
    """A shorter record costs as much as the shortest measured one, a longer one in proportion to its length."""
    assert capacity.record_us({200: 280, 20: 100}, chunk_ms) == pytest.approx(expected)


def test_the_last_bits_of_a_fraction_are_not_rounded_up():
    """What is whole by the formula is whole, although the computer's fractions are not exact."""
    assert [capacity._ceil(value) for value in (3 * 0.1 * 10, 3 + 1e-12, 3.001, 2.999)] == [3, 3, 4, 3]


def test_a_figure_for_a_core_counts_channels():
    """A record with two channels has twice the work, and two records of one channel have as much together."""
    for is_separate, expected in ((False, 400), (True, 200)):
        load = Load(100, channels_per_core=1_000, chunk_ms=200, is_separate=is_separate)
        assert values(load)["record_us"] == expected


def test_without_a_figure_of_the_gpu_there_is_no_number_of_gpus():
    """Nothing is invented: workers are counted by ingest alone, and the plan knows that it does not know."""
    plan = Plan(Load(1_000, chunk_ms=20, gpu="h100"), FIGURES)
    assert not plan.is_gpu_known
    assert "gpus" not in {step.formula.name for step in plan.steps}
    assert plan["workers"] == 1


@pytest.mark.parametrize(
    ("load", "message"),
    [
        (Load(14_000), "14,000 calls are too many for one Redis.*carries about 13,333 calls"),
        (Load(1_000_000), "1,000,000 calls are too many for one Redis.*carries about 13,333 calls"),
        (Load(20_000, chunk_ms=1, gpu="a", cores=1_024, redis_us=1), "ingest processes for each worker.*at most 64"),
    ],
)
def test_what_cannot_be_carried_is_refused(load, message):
    """The error says what the limit is and what to do."""
    with pytest.raises(ConfigurationError, match=message):
        Plan(load, FIGURES)


@pytest.mark.parametrize("calls", [1, 7, 100, 999, 5_000])
@pytest.mark.parametrize("cores", [2, 8, 64])
@pytest.mark.parametrize("gpu", [None, "a"])
def test_workers_fit_their_machines_and_share_all_partitions(calls, cores, gpu):
    """A worker has no more than its cores, all processes have the same number of partitions, and all calls a place."""
    found = values(Load(calls, chunk_ms=20, cores=cores, gpu=gpu, seconds_per_second=500 if gpu else None))
    assert found["cores_per_worker"] <= cores
    assert found["partitions"] >= 2 * found["all_processes"]
    assert found["partitions"] % found["all_processes"] == 0
    assert found["workers"] * found["processes_per_worker"] * found["calls_per_process"] >= calls


def test_formulas_name_only_what_is_known_before_them():
    """A formula uses the load, figures and earlier formulas, and each value has a name of its own."""
    for on_gpu in (True, False):
        steps = Plan(Load(10, gpu="a" if on_gpu else None, seconds_per_second=9), FIGURES).steps
        assert len({step.formula.name for step in steps}) == len(steps)
        for step in steps:
            names = {node.id for node in ast.walk(ast.parse(step.formula.text)) if isinstance(node, ast.Name)}
            assert names - {"ceil", "max"} == step.given.keys()


def test_the_figures_say_where_they_are_from():
    """Each group of figures names its command, its machine and the date, and all of them are above zero."""
    every = capacity.figures()
    for name in every.__struct_fields__:
        part = getattr(every, name)
        assert "callmood bench " in part.command
        assert part.machine
        assert part.date >= date(2026, 11, 1)
        assert all(value > 0 for _, value in capacity._numbers(part))
    assert not hasattr(every, "gpu")
