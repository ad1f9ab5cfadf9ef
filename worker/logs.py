"""Logs: JSON lines in production, readable text on a terminal. One line per utterance and per dead-letter record.

Logs never contain audio, payloads or phone numbers. A call id can be a phone number, so a line has a hash of it.
"""

import hashlib
import logging
import sys

import structlog

from callmood.worker.settings import LogSettings

_NO_ERRORS = ("Cancelled", "UnstableOffsetCommitError")
_QUIET = ("kafka", "urllib3", "httpx", "opentelemetry")


def configure(settings: LogSettings, *, process: str) -> None:
    """Set up structlog and the standard library's logging; call once per process, first."""
    level = logging.getLevelNamesMapping()[settings.level.upper()]
    is_console = settings.format == "console" or (settings.format == "auto" and sys.stderr.isatty())
    shared: list[structlog.types.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: structlog.types.Processor = (
        structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
        if is_console
        else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[*shared, renderer] if is_console else [*shared, structlog.processors.format_exc_info, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),  # a line is one write: processes share the stream
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(process=process)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.ExtraAdder()],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    handler.addFilter(_is_error)
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(max(level, logging.WARNING))
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.ERROR)


def _is_error(record: logging.LogRecord) -> bool:
    """Whether a line is more than one of two "errors" of kafka-python that are not errors.

    Requests are cancelled when the client closes. While an open transaction holds a group's offset, the client asks
    for it ten times a second; the worker itself logs that the partition is not ready for takeover.
    """
    return not (record.name.startswith("kafka.") and record.getMessage().endswith(_NO_ERRORS))


def call_hash(call_id: str) -> str:
    """A hash of a call id, for logs, because ids can be phone numbers. The same call always has the same hash."""
    return hashlib.blake2b(call_id.encode(), digest_size=6).hexdigest()
