"""Every error of the worker and its end: dead-letter, pause, retry, or stop the process with an exit code."""

from typing import ClassVar, Final

from callmood.schemas.common import DeadLetterReason

EXIT_OK: Final = 0
EXIT_CONFIGURATION: Final = 2
"""Settings, topics, credentials or the model are wrong: a restart does not help."""
EXIT_GIVE_UP: Final = 70
"""Record after record is bad: a restart does not help."""
EXIT_AGAIN: Final = 75
"""Start again and recover: fenced, no answer from Kafka or Redis, inference lost, or a bug."""

Reason = DeadLetterReason


class CallmoodError(Exception):
    """Base of the project's errors."""

    exit_code: ClassVar[int] = EXIT_AGAIN
    """Exit code of a process that stops because of this error."""


class BadRecord(CallmoodError):  # noqa: N818 - a record is bad; the program is not in error
    """One record breaks the contract: it is dead-lettered, its call goes on with a gap.

    `detail` is for operators and holds no audio, numbers or payload.
    """

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class ConfigurationError(CallmoodError):
    """Settings or input cannot work; the message says what to change. A process stops before it starts."""

    exit_code = EXIT_CONFIGURATION


class TooManyBadRecords(CallmoodError):  # noqa: N818 - as BadRecord
    """Record after record is bad: a bad deployment, not bad data. The process stops."""

    exit_code = EXIT_GIVE_UP


class StoreUnavailable(CallmoodError):  # noqa: N818 - the outside is in error; to be retried
    """The store does not answer, or refuses for now: keep the commit, pause, retry."""


class Unsettled(StoreUnavailable):
    """A partition cannot be taken over yet: a transaction of its dead owner is open. Try again, work on others.

    `retry_s` is the time until the next try is worth it.
    """

    def __init__(self, why: str, retry_s: float = 0.5) -> None:
        super().__init__(why)
        self.retry_s = retry_s


class Fenced(CallmoodError):  # noqa: N818 - as StoreUnavailable
    """Another owner holds the partition, or the store lost writes: drop the state and restore."""


class ModelError(CallmoodError):
    """A checkpoint cannot be used as it is; the message says what to do."""

    exit_code = EXIT_CONFIGURATION


class KafkaUnavailable(CallmoodError):  # noqa: N818 - as StoreUnavailable
    """No broker answers; the process ends and starts again."""


class InferenceLost(CallmoodError):  # noqa: N818 - as StoreUnavailable
    """The inference process is gone: the worker stops."""


def exit_code(error: BaseException) -> int:
    """Exit code of a process or command that stops because of this error."""
    return error.exit_code if isinstance(error, CallmoodError) else EXIT_AGAIN
