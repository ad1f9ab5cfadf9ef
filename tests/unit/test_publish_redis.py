"""What an entry of a stream shows to readers that filter."""

import pytest

from callmood.worker.adapters.publish_redis import _entry


def fields(**emotion):
    """The fields of an utterance's entry, without the record itself."""
    entry = _entry({"call_id": "call-1", "number": 3, "role": "customer", "emotion": emotion or None})
    shown = dict(zip(entry[::2], entry[1::2], strict=True))
    assert shown.pop("json")
    return shown


@pytest.mark.parametrize(
    ("emotion", "label"),
    [
        ({"label": "anger", "abstained": False}, "anger"),
        ({"label": "anger", "abstained": True}, None),
        ({"label": None, "abstained": True}, None),
        ({}, None),
    ],
)
def test_only_a_label_that_stands_is_shown(emotion, label):
    """A filter by label must not find utterances on which the model abstains."""
    expected = {"call_id": "call-1", "number": "3", "role": "customer"} | ({"label": label} if label else {})
    assert fields(**emotion) == expected
