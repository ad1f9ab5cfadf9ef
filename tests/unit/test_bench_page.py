"""The calls that the benchmark of the page publishes, and the table that it prints."""

import json

from callmood.bench import page
from callmood.bench.live_calls import steps
from callmood.schemas.call import Call
from callmood.schemas.utterance import Utterance


def test_its_calls_are_those_of_the_contract():
    """Each step is a valid utterance and aggregate; one kind needs a person, and the last step ends the call."""
    for is_upset in (False, True):
        made = steps(is_upset=is_upset, started_at_ms=1_750_000_000_000)
        calls = [Call.model_validate_json(step.call) for step in made]
        utterances = [Utterance.model_validate_json(step.utterance) for step in made]
        assert [one.number for one in utterances] == list(range(1, len(made) + 1))
        assert [call.status for call in calls] == ["live"] * (len(made) - 1) + ["completed"]
        assert (calls[-2].need != "none") == is_upset
        assert json.loads(made[0].call)["attributes"]["queue"] == "@queue@"


def test_its_table_has_a_cell_for_every_figure():
    """Each stage has its median and p95 over the rows that were painted; CPU time is by second and by change."""
    stages = [[float(n) for n in range(stage, stage + 100)] for stage in range(len(page._STAGES))]
    shares = {"busy_s": 0.11, "thread_s": 0.03, "browser_s": 0.2, "server_s": 0.05, "read_kb": 38.0}
    found = page.Figures(1000, 250.0, stages, [], shares | dict.fromkeys(page._READS, 2.0), 20)
    told = dict(zip(page._NAMES, page._cells(found), strict=True))
    assert (told["changes per s"], told["rows painted, of which the times are"]) == ("250", "100")
    assert told["- until it is painted, median / p95"] == "54 / 99 ms"
    assert told["an empty page's paint, median / p95"] == "none"
    assert (told["server, CPU"], told["server, CPU time of a change"]) == ("5 % of a core", "200 µs")
    assert (told["stream of a viewer"], told["all other reads per s"]) == ("2 kB/s", "8")
