"""The check for confidential data finds planted data."""

import pytest

from callmood.worker.logs import call_hash
from tests.chaos.confidential import PASSWORD, told
from tests.chaos.telephone import plans, ticker

CALL = next(plans(7, 200)).call_id


@pytest.mark.parametrize(
    "line",
    [f'{{"call": "{CALL}"}}', f"cannot connect: {CALL}:0:1:3200", ticker(7, 3), f"redis://worker:{PASSWORD}@there"],
)
def test_a_line_with_a_secret_is_found(line):
    """A call id, an utterance id and a password are found wherever they are in a line."""
    assert told([f"a\nb {line} c\nd"], 7) == [f"b {line} c"]


def test_hashes_and_topic_names_are_no_secrets():
    """A call's hash, a topic and another seed's call are no secrets of this run."""
    assert told([f"{call_hash(CALL)} chaos-kafka-7-audio chaos-8-00001"], 7) == []
