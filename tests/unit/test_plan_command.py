"""`callmood plan` on the command line."""

import argparse
import json
import re

import jsonschema
import pytest
import yaml

from callmood.__main__ import main
from callmood.worker.commands import plan
from callmood.worker.commands.capacity import Load

PLAN = ["plan", "--calls", "2000", "--chunk-ms", "20"]


@pytest.mark.parametrize("more", [[], ["--gpu", "h100"], ["--gpu", "h100", "--seconds-per-second", "9000"]])
def test_the_values_are_accepted_by_the_chart(capsys, pytestconfig, more):
    """The YAML part of the output is valid by the chart's schema, beside the values that the plan does not set."""
    assert main([*PLAN, *more]) == 0
    text = capsys.readouterr().out
    values = yaml.safe_load(re.search(r"^# values of.*?\n(.*?)\n\n", text, re.DOTALL | re.MULTILINE)[1])
    chart = pytestconfig.rootpath / "helm" / "callmood"
    merged = yaml.safe_load((chart / "values.yaml").read_text(encoding="utf-8"))
    for name, value in values.items():
        merged[name] = merged[name] | value if isinstance(value, dict) else value
    jsonschema.validate(merged, json.loads((chart / "values.schema.json").read_text(encoding="utf-8")))
    assert values["gpu"]["enabled"] == ("--gpu" in more)
    assert values["config"]["worker"]["ingest_processes"] >= 1
    assert values["topicsJob"]["enabled"]
    assert values["autoscaling"]["enabled"]
    assert values["autoscaling"]["maxReplicas"] == 2 * values["replicas"]
    memory_mib = [int(values["resources"][kind]["memory"].removesuffix("Mi")) for kind in ("requests", "limits")]
    assert memory_mib[1] == 2 * memory_mib[0]


def test_a_gpu_without_a_figure_is_said_to_be_unknown(capsys):
    """No number of GPUs is invented; the output says what to run, and what the model has to compute."""
    assert main([*PLAN, "--gpu", "h100"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "not known (no figure of 'h100': see below)" in text
    assert "The model must compute 800 s of audio per second. Run `callmood bench engine" in text
    assert re.search(r"replicas: \d+ # at least", text)


def test_a_figure_of_the_reader_gives_the_number_of_gpus(capsys):
    """800 s of audio per second, two thirds of 400 s for each GPU."""
    assert main([*PLAN, "--gpu", "H100", "--seconds-per-second", "400"]) == 0
    assert re.search(r"GPUs, one for each worker +3 GPUs", capsys.readouterr().out)


def test_explain_shows_formulas_numbers_and_sources(capsys):
    """Each formula is there with what went in, and each group of figures with command, date and machine."""
    assert main([*PLAN, "--explain"]) == 0
    text = capsys.readouterr().out
    assert (
        "records_per_s = calls * streams * 1000 / chunk_ms\n      100,000, of calls 2,000, streams 1, chunk_ms 20"
        in text
    )
    assert re.search(r"ingest: python -m deploy.local run -- callmood bench realtime [^;]*20\d\d-\d\d-\d\d, ", text)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--calls", "0"], "argument --calls: '0' is not a whole number from 1 to 10,000,000"),
        (["--calls", "-5"], "--calls: '-5' is not a whole number"),
        (["--calls", "2k"], "--calls: '2k' is not a whole number"),
        (["--calls", "1e3"], "--calls: '1e3' is not a whole number"),
        (["--calls", "\u0665"], "is not a whole number"),
        (["--calls", "99999999999"], "is not a whole number from 1 to 10,000,000"),
        (["--calls", "10", "--chunk-ms", "0"], "argument --chunk-ms: '0' is not a whole number from 1 to 5,000"),
        (["--calls", "10", "--chunk-ms", "20.5"], "argument --chunk-ms: '20.5'"),
        (["--calls", "10", "--legs", "3"], "argument --legs: '3' is not a whole number from 1 to 2"),
        (["--calls", "10", "--cores", "1"], "argument --cores: '1' is not a whole number from 2"),
        (["--calls", "10", "--gpu", " "], "the name of the GPU is empty"),
        (["--calls", "10", "--seconds-per-second", "0"], "'0' is not a number from 0.1"),
        (["--calls", "10", "--seconds-per-second", "0.09"], "'0.09' is not a number from 0.1"),
        (["--calls", "10", "--channels-per-core", "nan"], "'nan' is not a number from 0.001"),
        (["--calls", "10", "--redis-us", "inf"], "'inf' is not a number from 0.001"),
        ([], "the following arguments are required: --calls"),
    ],
)
def test_odd_numbers_are_refused_with_the_range(capsys, arguments, message):
    """The message names the argument, the value and what is allowed; the exit code is 2."""
    with pytest.raises(SystemExit) as ended:
        main(["plan", *arguments])
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_a_million_calls_are_too_many_for_one_redis(capsys):
    """The message says how many calls one Redis carries, and what to do."""
    assert main(["plan", "--calls", "1000000"]) == 2
    assert re.search(r"1,000,000 calls are too many for one Redis.*about \d+,\d{3} calls", capsys.readouterr().err)


@pytest.mark.parametrize(
    ("arguments", "remark"),
    [
        (["--chunk-ms", "9"], "Records of 9 ms are not measured"),
        (["--chunk-ms", "1", "--channels-per-core", "1"], "more than the rule of thumb for one Kafka cluster"),
    ],
)
def test_a_plan_beyond_what_is_known_has_a_remark(capsys, arguments, remark):
    """A plan for records of 20 ms has none of these remarks."""
    assert main(["plan", "--calls", "2000", *arguments]) == 0
    assert remark in " ".join(capsys.readouterr().out.split())
    assert main(PLAN) == 0
    assert not re.search("not measured; one|rule of thumb", " ".join(capsys.readouterr().out.split()))


def test_no_gpu_by_name(capsys):
    """`--gpu none` is a plan for CPUs, with threads for the model."""
    assert main([*PLAN, "--gpu", "none"]) == 0
    text = capsys.readouterr().out
    assert "cores for the model" in text
    assert re.search(r"model:\n +threads: \d+", text)


def test_the_defaults_are_those_of_the_formulas():
    """An option that is left out and a `Load` in Python mean the same."""
    parser = argparse.ArgumentParser()
    plan.add_arguments(parser)
    given = vars(parser.parse_args(["--calls", "10"]))
    assert Load(**{name: given[name] for name in Load._fields}) == Load(10)
