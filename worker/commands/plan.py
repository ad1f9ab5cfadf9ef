"""`callmood plan`: partitions, processes, cores, GPUs and memory for a number of calls, and the chart's values."""

import argparse
from collections.abc import Callable, Iterator
from textwrap import wrap
from typing import Final

from callmood.worker.commands.capacity import MODELS, Load, Plan, figures
from callmood.worker.commands.options import whole
from callmood.worker.errors import EXIT_OK

_WIDTH: Final = 100
_SHORTEST_MS: Final = 10
_MOST_PARTITIONS: Final = 4_000
_SHOWN: Final = {
    "records_per_s": "records",
    "ingest_cores": "CPU time of ingest",
    "ingest_processes": "ingest processes, each on a core of its own",
    "audio_per_s": "audio for the model",
    "model_cores": "cores for the model",
    "gpus": "GPUs, one for each worker",
    "replicas": "workers, with the spare ones",
    "cores_per_worker": "cores of a worker",
    "memory_mib": "memory of a worker",
    "partitions": "partitions of the audio topic",
    "redis_maxmemory_mb": "maxmemory of Redis",
    "redis_cores": "CPU time of Redis",
    "kafka_mb_per_s": "audio into Kafka",
    "kafka_disk_gb": "audio that Kafka keeps, all replicas",
    "unread_records": "callmood_unread_records at which workers are behind",
}
"""Values that are always shown, in this order, in words."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    _add_load(parser)
    _add_machines(parser)
    parser.add_argument("--explain", action="store_true", help="show each formula with its numbers, and the figures")


def _add_load(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--calls", type=whole(1, 10_000_000), required=True, metavar="N", help="simultaneous calls")
    parser.add_argument(
        "--chunk-ms", type=whole(1, 5_000), default=200, metavar="MS", help="audio per record, ms; default: 200"
    )
    parser.add_argument(
        "--legs", type=whole(1, 2), default=2, metavar="N", help="speakers with a channel of their own; default: 2"
    )
    parser.add_argument(
        "--separate",
        dest="is_separate",
        action="store_true",
        help="each leg has records of its own, as Twilio sends them; otherwise, a record has both legs interleaved",
    )
    parser.add_argument(
        "--call-s", type=whole(1, 86_400), default=300, metavar="S", help="mean length of a call, s; default: 300"
    )


def _add_machines(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--gpu", type=_gpu, metavar="NAME", help="kind of GPU, one for each worker; default: none")
    parser.add_argument("--model", choices=MODELS, default="large", help="size of HuBERT; default: large")
    parser.add_argument(
        "--cores", type=whole(2, 1_024), default=16, metavar="N", help="most cores of a worker; default: 16"
    )
    parser.add_argument(
        "--spare",
        type=whole(0, 1_000),
        default=1,
        metavar="N",
        help="workers that may fail while the others carry all calls; default: 1",
    )
    for name, least, command, meaning in (
        ("--channels-per-core", 0.001, "realtime", "channels per core, with records as planned"),
        ("--seconds-per-second", 0.1, "engine", "audio that one GPU (without --gpu, one core) computes per second, s"),
        ("--redis-us", 0.001, "servers", "CPU time of Redis for a call in a commit, us"),
    ):
        parser.add_argument(
            name, type=_rate(least), metavar="N", help=f"your figure of `callmood bench {command}`: {meaning}"
        )


def run(arguments: argparse.Namespace) -> int:
    """Print the plan; exit code 2 if one Redis or one worker cannot carry it."""
    plan = Plan(Load(**{name: getattr(arguments, name) for name in Load._fields}))
    explained = [explanation(plan)] if arguments.explain else []
    print("\n\n".join("\n".join(lines) for lines in (summary(plan), *explained, helm(plan), remarks(plan))))
    return EXIT_OK


def summary(plan: Plan) -> list[str]:
    """A line for each value that somebody must provide."""
    load, steps = plan.load, {step.formula.name: step for step in plan.steps}
    lines = [f"{load.calls:,} calls, {load.legs} legs, records of {load.chunk_ms} ms"]
    for name, words in _SHOWN.items():
        if name in steps:
            step = steps[name]
            lines.append(f"  {words:<52}{_number(step.value):>12} {step.formula.unit}")
        elif name == "gpus" and load.gpu is not None:
            lines.append(f"  {words:<52}{'not known':>12} (no figure of {load.gpu!r}: see below)")
    return lines


def explanation(plan: Plan) -> list[str]:
    """Each formula with its numbers, and where the figures are from."""
    lines = ["how it is computed"]
    for step in plan.steps:
        given = ", ".join(f"{name} {_number(value)}" for name, value in step.given.items())
        lines += [f"  {step.formula.name} = {step.formula.text}", f"      {_number(step.value)}, of {given}".rstrip()]
    lines.append("where the figures are from (worker/commands/capacity.toml)")
    every = figures()
    for name in every.__struct_fields__:
        part = getattr(every, name)
        lines += [f"  {name}: {part.command}", f"      {part.date}, {part.machine}"]
    return lines


def helm(plan: Plan) -> list[str]:
    """The chart's values that follow, as YAML."""
    load, whole = plan.load, {step.formula.name: round(step.value) for step in plan.steps}
    threads = [] if load.gpu else ["  model:", f"    threads: {whole['threads']}"]
    at_least = "" if plan.is_gpu_known else " # at least: by the ingest processes alone"
    return [
        "# values of the Helm chart",
        f"replicas: {whole['replicas']}{at_least}",
        "gpu:",
        f"  enabled: {'true' if load.gpu else 'false'}",
        "resources:",
        "  requests:",
        f'    cpu: "{whole["cores_per_worker"]}"',
        f"    memory: {whole['memory_mib']}Mi",
        "  limits:",
        f"    memory: {2 * whole['memory_mib']}Mi",
        "config:",
        "  worker:",
        f"    ingest_processes: {whole['processes_per_worker']}",
        *threads,
        "topicsJob:",
        "  enabled: true",
        f"  partitions: {whole['partitions']}",
        "autoscaling:",
        "  enabled: true # needs KEDA",
        "  prometheusAddress: http://prometheus.example.com:9090 # that of your cluster",
        f"  maxReplicas: {2 * whole['replicas']}",
        f"  audioAgeSeconds: {plan['scale_age_s']:.0f}",
        "  activation:",
        f"    callsPerPartition: {whole['calls_per_partition']}",
        f"    chunkMs: {load.chunk_ms}",
    ]


def remarks(plan: Plan) -> list[str]:
    """What the plan does not know, in lines."""
    texts = [*_of_the_model(plan), *_of_the_rest(plan)]
    return [line for text in texts for line in wrap(text, _WIDTH, initial_indent="- ", subsequent_indent="  ")]


def _of_the_model(plan: Plan) -> Iterator[str]:
    load = plan.load
    if load.gpu and not plan.is_gpu_known:
        yield (
            "GPUs are not measured, so their number is not known, and the workers above are those of ingest alone. "
            f"The model must compute {plan['audio_per_s']:,.0f} s of audio per second. Run `callmood bench engine "
            f"--shape {load.model}` on the GPU, and give its best figure as --seconds-per-second."
        )
    elif load.seconds_per_second is None:
        yield (
            f"The figure of the model is HuBERT-{load.model} in float32 on an Intel core without AMX. Measure your CPU "
            f"with `callmood bench engine --shape {load.model}`, divide by its threads, and give --seconds-per-second."
        )
    yield "The memory of the inference process is not measured: the plan has the chart's default for it, 4 GiB."


def _of_the_rest(plan: Plan) -> Iterator[str]:
    yield (
        "Figures are each of one machine (--explain shows them). Measure yours with `callmood bench realtime` and "
        "`callmood bench servers`."
    )
    yield "The plan is for results in Redis (output=redis), and G.711 in records with headers."
    if plan.load.chunk_ms < _SHORTEST_MS:
        yield (
            f"Records of {plan.load.chunk_ms} ms are not measured; one is assumed to cost as much as one of 20 ms. Let "
            "producers send 20 ms or more."
        )
    if plan["partitions"] > _MOST_PARTITIONS:
        yield (
            f"{plan['partitions']:,.0f} partitions are more than the rule of thumb for one Kafka cluster, "
            f"{_MOST_PARTITIONS:,}. Plan several deployments, or send longer records."
        )


def _number(value: float) -> str:
    return f"{value:,.0f}" if value == round(value) or value >= 100 else f"{value:,.3g}"  # noqa: PLR2004 - digits


def _rate(least: float) -> Callable[[str], float]:
    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = 0.0
        if not least <= value <= 1e9:  # noqa: PLR2004 - a figure beyond is a typing error
            raise argparse.ArgumentTypeError(f"{text!r} is not a number from {least} to 1,000,000,000")
        return value

    return read


def _gpu(text: str) -> str | None:
    if not text.strip():
        raise argparse.ArgumentTypeError("the name of the GPU is empty; without a GPU, leave --gpu out")
    return None if text.strip().lower() == "none" else text.strip()
