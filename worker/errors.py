"""Every error of the worker and its end: dead-letter, pause, retry, or stop the process."""

from callmood.schemas.common import DeadLetterReason

Reason = DeadLetterReason


class CallmoodError(Exception):
    """Base of the project's errors."""


class BadRecord(CallmoodError):  # noqa: N818 - a record is bad; the program is not in error
    """One record breaks the contract: it is dead-lettered, its call goes on with a gap.

    `detail` is for operators and holds no audio, numbers or payload.
    """

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class ConfigurationError(CallmoodError):
    """Settings cannot work; the process stops before it starts. Exit code 2."""


class TooManyBadRecords(CallmoodError):  # noqa: N818 - as BadRecord
    """Record after record is bad: a bad deployment, not bad data. The process stops."""


class StoreUnavailable(CallmoodError):  # noqa: N818 - a state of the outside, retried
    """The store does not answer or refuses for now: keep the commit, pause, retry."""


class Unsettled(StoreUnavailable):
    """A partition cannot be taken over yet: what its dead owner left open is not decided. Ask again, work on others."""


class Fenced(CallmoodError):  # noqa: N818 - a state of the outside
    """Another owner holds the partition, or the store lost writes: drop the state and restore."""


class ModelError(CallmoodError):
    """A checkpoint cannot be used as it is; the message says what to do."""


class KafkaUnavailable(CallmoodError):  # noqa: N818 - a state of the outside
    """No broker answers; the process ends and starts again."""


class InferenceLost(CallmoodError):  # noqa: N818 - a state of the outside
    """The inference process is gone: the worker stops."""
