"""The worker's errors. Each leads to a dead-letter record, a pause, a retry, or a stop with an exit code."""

from pathlib import Path
from traceback import extract_tb
from typing import ClassVar, Final

from callmood.schemas.common import DeadLetterReason

EXIT_OK: Final = 0
EXIT_CONFIGURATION: Final = 2
"""Settings, topics, credentials or the model are wrong: a restart does not help."""
EXIT_GIVE_UP: Final = 70
"""More bad records in a row than the limit: a restart does not help."""
EXIT_AGAIN: Final = 75
"""A restart helps: fenced, no answer from Kafka or Redis, inference process lost, or a bug."""

Reason = DeadLetterReason


class CallmoodError(Exception):
    """Base of the project's errors."""

    exit_code: ClassVar[int] = EXIT_AGAIN
    """Exit code of a process that stops because of this error."""


class BadRecord(CallmoodError):  # noqa: N818 - a record is bad; the program is not in error
    """One record breaks the contract: it goes to the dead-letter topic, and its call continues with a gap.

    `detail` is for operators. It contains no audio, phone numbers or payload.
    """

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class ConfigurationError(CallmoodError):
    """A setting, credential, topic or input is wrong; the message says what to change. The process stops."""

    exit_code = EXIT_CONFIGURATION


class TooManyBadRecords(CallmoodError):  # noqa: N818 - as BadRecord
    """More bad records in a row than `input.max_consecutive_bad`: the process stops."""

    exit_code = EXIT_GIVE_UP

    @classmethod
    def of(cls, count: int, source: str, newest: BadRecord) -> "TooManyBadRecords":
        """The error after so many on a partition."""
        return cls(
            f"{count} bad records in a row on {source}; the newest: {newest}. Check what the producers send, and "
            "CALLMOOD_INPUT__FORMAT"
        )


class StoreUnavailable(CallmoodError):  # noqa: N818 - the outside is in error; to be retried
    """Redis or Kafka does not accept a commit now: pause reading and repeat the same commit."""


class StoreRefused(CallmoodError):  # noqa: N818 - as StoreUnavailable
    """Redis answers with an error that nobody has foreseen: the process ends and starts again."""


class Unsettled(StoreUnavailable):
    """A partition cannot be taken over yet.

    Its earlier owner's transaction is open, an output topic lacks it, or it has no leader. `retry_s` is the time until
    the next try.
    """

    def __init__(self, why: str, retry_s: float = 0.5) -> None:
        super().__init__(why)
        self.retry_s = retry_s


class Fenced(CallmoodError):  # noqa: N818 - as StoreUnavailable
    """Another worker owns the partition, or the store lost writes: drop the state and restore."""


class ModelError(CallmoodError):
    """The model cannot be loaded or computed as configured; the message says why."""

    exit_code = EXIT_CONFIGURATION


class KafkaUnavailable(CallmoodError):  # noqa: N818 - as StoreUnavailable
    """No broker answers; the process ends and starts again."""


class InferenceLost(CallmoodError):  # noqa: N818 - as StoreUnavailable
    """The inference process does not respond: the ingest process stops."""


def exit_code(error: BaseException) -> int:
    """Exit code of a process or command that stops because of this error."""
    return error.exit_code if isinstance(error, CallmoodError) else EXIT_AGAIN


def place_of(error: Exception) -> str:
    """The kind of an error and where it was raised; its text may hold what the record holds."""
    frame = extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} in {Path(frame.filename).name}, line {frame.lineno}"
