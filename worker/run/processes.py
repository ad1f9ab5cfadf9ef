"""The kinds of child process of the supervisor, each from its start to its exit code."""

import gc
import os
import signal
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import structlog

from callmood.worker import logs
from callmood.worker.errors import EXIT_AGAIN, EXIT_CONFIGURATION, EXIT_OK, CallmoodError, exit_code
from callmood.worker.inference.submit import InferenceClient
from callmood.worker.run import traces
from callmood.worker.run.pinning import keep_to_own_cores
from callmood.worker.settings import Settings

_REPORT_S = 1.0
_WAIT_S = 0.05
_COLLECT_AFTER = 50_000
"""Container objects made minus freed, after which the garbage collector looks at them.

Python's own 700 are reached 70 times a second by a busy process, and each look at all objects of 1,400 live calls takes
70 ms. Almost nothing here refers to itself in a circle: reference counts free the rest.
"""

log = structlog.get_logger()


class Report(NamedTuple):
    """What a process reports to the supervisor: the name of its state, and figures."""

    state: str
    facts: dict[str, Any]


class _Stop:
    """SIGTERM asks to drain; SIGINT is ignored, because the supervisor turns it into SIGTERM."""

    def __init__(self) -> None:
        self.is_asked = False
        signal.signal(signal.SIGTERM, self._ask)
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    def _ask(self, *_: object) -> None:
        self.is_asked = True


class _Reporter:
    """Sends reports about once a second; the process exits if the supervisor no longer runs."""

    def __init__(self, reports: Connection) -> None:
        self._reports = reports
        self._next_s = 0.0

    def due(self) -> bool:
        return time.monotonic() >= self._next_s

    def send(self, state: str, **facts: Any) -> None:
        self._next_s = time.monotonic() + _REPORT_S
        try:
            self._reports.send(Report(state, facts))
        except (BrokenPipeError, ConnectionResetError):
            os._exit(EXIT_AGAIN)


def ingest(settings: Settings, name: str, address: str, reports: Connection) -> None:
    """The ingest process: waits for a warm model, then joins the group and loops until SIGTERM."""
    logs.configure(settings.log, process=name)
    stop, reporter = _Stop(), _Reporter(reports)
    sys.exit(_ended_by(lambda: _ingest(settings, name, address, (stop, reporter))))


def _ingest(settings: Settings, name: str, address: str, control: tuple[_Stop, _Reporter]) -> None:
    keep_to_own_cores(settings.worker, int(name.rpartition("-")[2]))  # before numpy, whose threads begin at its import
    from callmood.worker.run.wiring import open_ingest  # noqa: PLC0415 - imports metrics, which the supervisor must not

    stop, reporter = control
    client = InferenceClient(address, stall_s=settings.worker.stall_s)
    while client.model is None:
        client.collect()
        if stop.is_asked:
            return
        if reporter.due():
            reporter.send("waiting for the model")
        time.sleep(_WAIT_S)
    reporter.send("joining the group")
    with traces.exported(settings.trace, process=name), open_ingest(settings, name, client) as loop:
        gc.freeze()  # what is there now stays: the garbage collector need not look at it again
        gc.set_threshold(_COLLECT_AFTER, *gc.get_threshold()[1:])
        while not stop.is_asked:
            loop.turn()
            if reporter.due():
                reporter.send("running", **loop.status()._asdict())
        reporter.send("draining")
        drained = loop.drain(time.monotonic() + settings.worker.drain_timeout_s)
        log.info("drained" if drained else "drain timed out; the next owner repeats the rest")


def projector(settings: Settings, name: str, reports: Connection) -> None:
    """The projector process, with `output=both`: copies Kafka's results into Redis until SIGTERM."""
    logs.configure(settings.log, process=name)
    stop, reporter = _Stop(), _Reporter(reports)
    sys.exit(_ended_by(lambda: _projector(settings, name, stop, reporter)))


def _projector(settings: Settings, name: str, stop: _Stop, reporter: _Reporter) -> None:
    from callmood.worker.run.wiring import open_projector  # noqa: PLC0415 - imports metrics, which the supervisor must not

    with traces.exported(settings.trace, process=name), open_projector(settings, name) as loop:
        while not stop.is_asked:
            loop.turn()
            if reporter.due():
                reporter.send("running", **loop.status()._asdict())


def inference(settings: Settings, address: str) -> None:
    """The inference process: loads the model, warms up, answers until SIGTERM or the end of its parent."""
    logs.configure(settings.log, process="inference")
    code = _ended_by(lambda: _inference(settings, address))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # the interpreter would unload torch's libraries first: a second, and several on a busy machine


def _inference(settings: Settings, address: str) -> None:
    keep_to_own_cores(settings.worker)  # before torch, which counts the cores once
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # else threads of torch spin while they wait
    from callmood.worker.inference.serve import serve  # noqa: PLC0415 - loads the model's libraries, for this process alone

    serve(settings.model, address)


def _ended_by(work: Callable[[], None]) -> int:
    """Run `work` to its end; returns the exit code for how it ended."""
    try:
        work()
    except CallmoodError as error:
        code = exit_code(error)
        if code == EXIT_CONFIGURATION:
            log.error("cannot run", error=str(error))  # noqa: TRY400 - the message is enough
        else:
            log.error("stopping on an error", error=str(error), kind=type(error).__name__)  # noqa: TRY400 - the message is enough
        return code
    except Exception:  # the process ends, and the next one recovers as after a kill
        log.exception("stopping on an error")
        return EXIT_AGAIN
    return EXIT_OK
