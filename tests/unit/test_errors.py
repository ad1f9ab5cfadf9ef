"""Which exit code each error ends with."""

import pytest

from callmood.worker import errors
from callmood.worker.commands.demo import DemoFailed
from callmood.worker.commands.erase import CallIsLiveError
from callmood.worker.commands.recordings import BadRecording


@pytest.mark.parametrize(
    "kind", [errors.ConfigurationError, errors.ModelError, BadRecording, CallIsLiveError, DemoFailed]
)
def test_what_a_person_must_change_is_not_restarted(kind):
    """Wrong settings, models and input end with 2."""
    assert errors.exit_code(kind("wrong")) == 2


@pytest.mark.parametrize(
    "kind",
    [
        errors.StoreUnavailable,
        errors.Unsettled,
        errors.Fenced,
        errors.KafkaUnavailable,
        errors.InferenceLost,
        errors.CallmoodError,
        RuntimeError,
    ],
)
def test_what_may_pass_is_restarted(kind):
    """A server that does not answer, another owner and bugs end with 75."""
    assert errors.exit_code(kind("for now")) == 75


def test_nothing_but_bad_records_is_not_restarted():
    """Record after record that is bad ends with 70."""
    assert errors.exit_code(errors.TooManyBadRecords("all of them")) == 70
