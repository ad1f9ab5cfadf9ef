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
    """Times are those of the rows that were painted."""
    found = page.Figures(1000, 250.0, [float(n) for n in range(100)], 0.11, 0.09, dict.fromkeys(page._READS, 2.0), 6.0)
    cells = page._cells(found)
    assert len(cells) == len(page._NAMES)
    assert cells[:6] == ("250", "100", "50 ms", "95 ms", "11 %", "9 % of a core")
