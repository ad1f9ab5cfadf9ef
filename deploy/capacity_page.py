"""docs/capacity.md, generated from the figures and formulas of `callmood plan`."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from callmood.worker.commands import capacity

PAGE: Final = Path(__file__).parents[1] / "docs" / "capacity.md"
_HEAD: Final = """# Capacity

<!-- written by `make docs` from worker/commands/capacity.toml and capacity.py; do not edit -->

`callmood plan` computes what a number of calls needs, and the values of the Helm chart for it:

```sh
callmood plan --calls 2000 --chunk-ms 20 --gpu h100
callmood plan --calls 2000 --chunk-ms 20 --gpu h100 --seconds-per-second 20000 --explain
```

`--explain` shows each formula with its numbers. [Commands](commands.md#callmood-plan) lists the options. A plan that
one Redis or one worker cannot carry ends with exit code 2 and says how much they carry.

**No GPU has been measured.** Without `--seconds-per-second`, a plan with `--gpu` has no number of GPUs (20,000 is an
example). Measure yours with `callmood bench engine`. The figures below are of one machine each;
give your own as `--channels-per-core` (`callmood bench realtime`, with a load at which it does not say `behind`) and
`--redis-us` (`callmood bench servers`).

- **Records.** Records of 20 ms cost several times the CPU time of records of 200 ms for the same audio. With longer
  records, results come later by their length.
- **Partitions.** A partition belongs to one ingest process at a time. The plan has at least two partitions for each
  process, because [adding partitions](operations.md#changing-partitions) needs a pause of the producers.
- **A worker uses one GPU**, and one core for the process that feeds it. On a host with several GPUs, start one worker
  per GPU, each with its own `CUDA_VISIBLE_DEVICES` and `CALLMOOD_WORKER__HEALTH_PORT`. Then a GPU that hangs stops only
  one worker.
- **On a CPU** with a large model, try `CALLMOOD_MODEL__DTYPE=int8`, and `int8+bf16` if the CPU is faster in bfloat16
  than in float32. **On a GPU**, try larger batches (`--batch-seconds 240`, `CALLMOOD_MODEL__BATCH_SECONDS`).
- **Compiled.** In the image, the code that handles each record is compiled, and carries 1.2 to 1.4 times as many
  channels per core as in plain Python ([figures](../bench/RESULTS.md#compiled)). Elsewhere, with gcc and Python's
  header files: `pip install '.[compile]'`, then `COMPILE_CALLMOOD=1 pip install --no-deps --no-build-isolation .`.
  That was tested with Python 3.11 and 3.13 and the versions of `deploy/requirements*.txt`. `compiled` in the log event
  `worker started` says which one runs. The results are the same.
- **Own cores.** `CALLMOOD_WORKER__PIN=true` gives each ingest process, with all its threads, one core, and the model
  the others. It pays where other programs are busy: on two cores of an Intel Xeon, beside one such program, an ingest
  process then carried 1.08 and 1.10 times as many channels per core (`callmood bench realtime --calls 600`, two pairs
  of runs). Without one, it carried 0.90 to 1.01 times as many (three pairs). Several ingest processes were not
  measured. The cores must be the worker's own: with Kubernetes' CPU manager policy `static` and whole CPUs as request
  and limit, or with `--cpuset-cpus`. A worker refuses the setting if its CPU limit is a whole CPU or more below the
  CPUs that it sees, or if its pod sees all CPUs of the node. It cannot notice all other cases: two workers on one
  machine must not both use it.
- **Redis** computes on one core. `maxmemory` is twice the data, for the copies that `appendonly yes` makes when it
  rewrites its file.
- **Spare workers** carry the calls of a worker that fails. With `--spare 0`, results are late until it is back.

## Overload

If more audio arrives than the workers can process, results are late. By default, none is skipped.

- **The model is too slow or hangs.** With `CALLMOOD_MODEL__MAX_IN_FLIGHT` utterances or
  `CALLMOOD_MODEL__MAX_IN_FLIGHT_MB` of their audio at the model, an ingest process pauses reading (`callmood_paused`)
  until half of them is answered. The rest waits in Kafka, so memory does not grow with the delay. If the model thread
  makes no progress for `CALLMOOD_WORKER__STALL_S`, the worker ends, and the next one repeats what was not committed.
- **Ingest is too slow.** Records wait in Kafka (`callmood_unread_records`). While reading is paused, the worker asks
  Kafka for this number every ten seconds.
- **Recovery.** When the load falls, the workers catch up without help. Keep audio in Kafka for longer than the longest
  delay: audio that Kafka deletes before a worker reads it is lost ([runbook](operations.md#callmoodrecordslost)).

A test stops the inference process under load: a bounded number of utterances waits, memory stays bounded, and all
results are those of `callmood analyze` once it continues (`tests/integration/test_overload.py`).

**Fresh or complete.** With `CALLMOOD_MODEL__SKIP_AFTER_S`, short utterances get no emotion while the model is behind.
The model has then less to compute: with HuBERT-base on two cores and 128 calls, 16 % were skipped, and p99 was 5
instead of 8 s ([figures](../bench/RESULTS.md#capacity)). The setting applies to an utterance that still waits when the
model has begun as many batches as it can, that has waited for `CALLMOOD_MODEL__BATCH_MS`, and whose end is at least
this old: it is skipped if its speech is shorter than `CALLMOOD_MODEL__SKIP_BELOW_S`, or shorter than twice that at
twice the age, up to three times (4.5 s by default, longer than most utterances). This is also so
after an outage, until the worker has caught up. A model that keeps up skips nothing. A skipped utterance still counts
as talk. Its `withheld` is `overloaded`; `roles.*.skipped` of the call and
`callmood_utterances_total{label="overloaded"}` count it, and [an alert](operations.md#callmoodskipped) reports it. Its
age goes by the timestamps of the records, so a producer's clock that is late makes its utterances old.

Skipped results depend on the load of the moment, and a replay of the call can differ from them
([decision 0035](decisions/0035-skipping-under-load.md)). By default, a live call, its replay and its recording give the
same results.
"""
_MEANING: Final = {
    "use": "share of a measured capacity that is planned for",
    "speech_share": "speech of the customer, for which the model is asked, as a share of the call's time",
    "audio_bytes_per_s": "G.711, bytes per second and leg; base64 in JSON is a third more",
    "retention_s": "retention of the audio topic, s",
    "replicas_of_topics": "replication factor of the audio topic",
    "least_partitions": "fewest partitions",
    "in_flight_mb": "audio at the model, twice: `CALLMOOD_MODEL__MAX_IN_FLIGHT_MB`, and its copy in the socket",
    "inference_mib": "memory of the inference process, MiB; not measured: the chart's default for a worker",
    "scale_age_s": "age of audio at which the autoscaler adds workers, s",
    "ended_ttl_s": "`CALLMOOD_REDIS__ENDED_TTL_S`",
    "firehose_length": "`CALLMOOD_REDIS__FIREHOSE_LENGTH`",
}


def page() -> str:
    """The content of docs/capacity.md."""
    return "\n".join([_HEAD, *_formulas(), *_figures(), *_assumed()])


def _formulas() -> Iterator[str]:
    """With a GPU; what differs on a CPU follows."""
    yield "## Formulas\n\n| value | unit | formula |\n| --- | --- | --- |"
    on_gpu, on_cpu = (capacity.formulas(is_on_gpu=is_on_gpu) for is_on_gpu in (True, False))
    yield from (f"| `{one.name}` | {one.unit} | `{one.text}` |" for one in on_gpu)
    yield "\nWithout a GPU, these take the place of `gpus`, `workers` and `threads`:\n"
    yield "| value | unit | formula |\n| --- | --- | --- |"
    yield from (f"| `{one.name}` | {one.unit} | `{one.text}` |" for one in on_cpu if one not in on_gpu)
    yield (
        "\n`record_us` is the CPU time of a record of this length: interpolated between the measured lengths, in "
        "proportion\nabove them, and that of the shortest below them. `streams` is 2 with `--separate`, otherwise 1.\n"
    )


def _figures() -> Iterator[str]:
    yield "## Figures\n"
    every = capacity.figures()
    for name in every.__struct_fields__:
        part = msgspec.structs.asdict(getattr(every, name))
        command, machine, day = (part.pop(key) for key in ("command", "machine", "date"))
        yield f"**{name}**: `{command}`; {machine}; {day}.\n\n| figure | value |\n| --- | --- |"
        yield from (f"| `{key}` | {_in_words(value)} |" for key, value in part.items())
        yield ""


def _in_words(value: dict[int, float] | float) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{at} ms: {us:,.0f}" for at, us in value.items())
    return f"{value:,g}"


def _assumed() -> Iterator[str]:
    yield "## Assumed\n\n| name | value | meaning |\n| --- | --- | --- |"
    yield from (f"| `{name}` | {value:,.7g} | {_MEANING[name]} |" for name, value in capacity.ASSUMED.items())
    yield ""
