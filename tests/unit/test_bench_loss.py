"""The benchmark of lost packets: its call, its losses, and that the figures of the call hold."""

import numpy as np
import pytest

from callmood.bench import field, loss


def test_nothing_lost_is_the_whole_call():
    """Turns follow each other: each figure is known, and talk and silence are the minute."""
    if not (field.PROMPTS / field.VOICES["Italian"]).is_dir():
        pytest.skip("asterisk-core-sounds-it-wav is not installed")
    sent = loss.records(loss.dialogue())
    assert len(sent) == 3_001
    whole = loss.figures(sent, (), loss.settings_of(700))
    assert whole.talk == whole.customer + whole.agent
    assert whole.talk + whole.silence == 60_000
    lost = next(loss.losses(3_000, 0.05, 10))
    found = loss.figures(sent, lost, loss.settings_of(700))
    assert found == pytest.approx(whole, rel=0.05)
    assert loss.figures(sent, lost, loss.settings_of(0)).talk < found.talk


def test_records_are_lost_in_bursts_and_never_the_end():
    """Of each seed other ones, at the rate and as many in a row as asked."""
    found = list(loss.losses(3_000, 0.1, 10))
    assert len(found) == 10
    assert len({frozenset(lost) for lost in found}) == 10
    assert max(map(max, found)) < 3_000
    assert np.mean([len(lost) for lost in found]) == pytest.approx(300, rel=0.3)
