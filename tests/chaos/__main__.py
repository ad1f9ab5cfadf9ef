"""`python -m tests.chaos --profile full --mode kafka --seed 7`: cause failures, then verify the outputs.

Ends with 0 if the verifier finds every property to hold, and with 1 otherwise. One line repeats a run; the order of
events on real machines is never quite the same, but calls, faults and their pace are the seed's. A machine that is slow
to kill gets more calls.
"""
# ruff: noqa: T201 - a command prints

import argparse
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from random import Random

from tests.chaos import faults, look
from tests.chaos.bugs import BUGS
from tests.chaos.config import ENOUGH, Run
from tests.chaos.fleet import Fleet
from tests.chaos.report import Report
from tests.chaos.rollout import UPGRADES
from tests.chaos.scene import Fault, Scene
from tests.chaos.servers import MASTER, Servers, wait_until
from tests.chaos.takeovers import Takeovers

_QUIET_S = 6.0  # a process that was stopped, and now runs on, tries to commit within a second
_DRAINED_S = 120.0
"""A run takes a tenth of it; what takes longer would be a standstill in production, too."""
_ATTEMPTS_S = 1.0

_programs: list["subprocess.Popen[bytes]"] = []  # none of them outlives this process


@dataclass(frozen=True)
class Profile:
    """How much of it: pauses are s between two faults of a kind."""

    calls: int
    concurrency: int
    takeovers: int
    pause_s: float
    server_pause_s: float
    kills: int = 0
    """So many there must be."""


PROFILES = {
    "full": Profile(calls=600, concurrency=12, takeovers=8, pause_s=1.5, server_pause_s=15.0, kills=200),
    "short": Profile(calls=27, concurrency=9, takeovers=0, pause_s=1.5, server_pause_s=6.0, kills=8),
    "brief": Profile(calls=16, concurrency=8, takeovers=0, pause_s=0.5, server_pause_s=3.0),
}


def main(arguments: Sequence[str]) -> int:
    """Returns the exit code."""
    options = _parse(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    report = Report(" ".join(["python -m tests.chaos", *arguments]))
    with Servers() as servers:
        folder = servers.folder / "run"
        folder.mkdir()
        profile = PROFILES[options.profile]
        run = Run(
            mode=options.mode,
            seed=options.seed,
            calls=options.calls or profile.calls,
            concurrency=profile.concurrency,
            chunk_ms=options.chunk_ms,
            partitions=8,
            idle_s=10,
            prefix=f"chaos-{options.mode}-{options.seed}",
            bootstrap_servers=servers.kafka.bootstrap_servers,
            sentinels=servers.redis.sentinels,
            master=MASTER,
            folder=str(folder),
        )
        run.save()
        servers.kafka.create_topics(run)
        settings = {"kafka__assignor": options.assignor, "kafka__membership": options.membership}
        fleet = Fleet(run, settings, bug=options.bug)
        try:
            scene = Scene(run, servers, fleet, Random(f"chaos {run.seed}"), only=frozenset(options.only))
            takeovers = profile.takeovers if options.takeovers is None else options.takeovers
            is_clean = _live(scene, profile, takeovers, report, tamper=options.tamper)
        finally:
            for program in _programs:
                program.kill()
            if options.logs:
                options.logs.write_text(fleet.logs())
            fleet.discard()
    print(report.text())
    if options.results:
        with options.results.open("a") as results:
            results.write(report.markdown())
    return 0 if is_clean else 1


def _live(scene: Scene, profile: Profile, takeovers: int, report: Report, *, tamper: bool) -> bool:
    run, fleet = scene.run, scene.fleet
    for number in range(2):
        fleet.start(number)
    wait_until(lambda: all(fleet.is_ready(number) for number in range(2)), "two workers to be ready")
    reader = _program("reader", run)
    load = _program("load", run)
    journal = run.file("journal.jsonl")
    wait_until(
        lambda: journal.exists() and journal.read_text().count("begun") >= run.concurrency, "calls on every line"
    )
    report.mark("start")
    report.takeovers = Takeovers(scene)
    report.takeovers.measure(takeovers)
    report.mark("takeovers")
    _storm(scene, profile, load)
    report.mark("calls")
    if load.wait() != 0:
        raise RuntimeError("the load has lost a record: its broker did not keep what it acknowledged")
    is_quiet = _is_quiet_in_time(scene)
    report.mark("quiet")
    reader.terminate()
    reader.wait()
    metrics = fleet.metrics()
    fleet.close()  # a worker that is alive could repair what the verifier falsifies
    code, verdict = _verify(run, tamper=tamper)
    report.mark("verify")
    report.add(scene, verdict, metrics, least_kills=profile.kills)
    return code == 0 and is_quiet and not report.broken


def _verify(run: Run, *, tamper: bool) -> tuple[int, str]:
    command = [sys.executable, "-m", "tests.chaos.verify", "--run", str(run.file("run.json"))]
    command += ["--tamper"] if tamper else []
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    return done.returncode, done.stdout


def _storm(scene: Scene, profile: Profile, load: "subprocess.Popen[bytes]") -> None:
    """Faults of each kind go on beside each other while there are calls, and calls until there were enough kills."""
    kinds = [(faults.KILLS, profile.pause_s), (faults.LIVES, profile.server_pause_s)]
    kinds += [(faults.KAFKA, profile.server_pause_s)]
    kinds += [(faults.REDIS, profile.server_pause_s)] if scene.run.mode != "kafka" else []
    kinds += (
        [(UPGRADES, profile.pause_s)] if scene.only & {fault.__name__ for fault in UPGRADES} else []
    )  # only if asked: it needs Helm
    kinds = [(chosen, pause_s) for kind, pause_s in kinds if (chosen := scene.chosen(kind))]
    with ThreadPoolExecutor(len(kinds)) as pool:
        loops: list[Future[None]] = [
            pool.submit(_loop, scene, kind, pause_s, profile.kills, load, Random(f"{scene.run.seed} {number}"))
            for number, (kind, pause_s) in enumerate(kinds)
        ]
        for loop in loops:
            loop.result()
    scene.collect_armed()
    for name in list(scene.armed):
        scene.disarm(name)


def _loop(
    scene: Scene,
    kind: tuple[Fault, ...],
    pause_s: float,
    least_kills: int,
    load: "subprocess.Popen[bytes]",
    random: Random,
) -> None:
    while load.poll() is None and scene.run.sent() is None:
        if scene.kills >= least_kills:
            scene.run.file(ENOUGH).touch()
        time.sleep(random.uniform(0.5, 1.5) * pause_s)
        faults.inflict(random.choice(kind), scene)


def _is_quiet_in_time(scene: Scene) -> bool:
    """Wait until all that was sent is committed, and for a while nothing more is."""
    run, began_s = scene.run, time.monotonic()
    seen, since_s = None, time.monotonic()
    while time.monotonic() - since_s < _QUIET_S:
        if time.monotonic() - began_s > _DRAINED_S:
            print(f"not quiet after {_DRAINED_S:.0f} s: what is there now is judged", file=sys.stderr)
            return False
        time.sleep(_ATTEMPTS_S)
        positions = look.watermarks(run), look.projected(run)
        if positions != seen or positions[0] != look.ends(run, "audio"):
            seen, since_s = positions, time.monotonic()
    return True


def _program(name: str, run: Run) -> "subprocess.Popen[bytes]":
    _programs.append(
        subprocess.Popen([sys.executable, "-m", f"tests.chaos.{name}", "--run", str(run.file("run.json"))])
    )
    return _programs[-1]


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--profile", choices=list(PROFILES), default="short")
    parser.add_argument("--mode", choices=("redis", "kafka", "both"), default="kafka")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--bug", choices=list(BUGS), help="plant a bug in the workers: the run must end with 1")
    parser.add_argument("--only", nargs="*", default=[], metavar="NAME", help="faults, and points of kill_at_point")
    parser.add_argument("--calls", type=int, help="number of calls (default: the profile's)")
    parser.add_argument("--takeovers", type=int, help="takeovers to measure before the storm (default: the profile's)")
    parser.add_argument("--chunk-ms", type=int, default=100, help="audio in a record, about")
    parser.add_argument("--assignor", choices=("cooperative-sticky", "sticky", "range"), default="cooperative-sticky")
    parser.add_argument("--membership", choices=("dynamic", "static"), default="dynamic")
    parser.add_argument(
        "--tamper", action="store_true", help="falsify the outputs at the end: the verifier must see it"
    )
    parser.add_argument("--results", type=Path, help="append the table to this file")
    parser.add_argument("--logs", type=Path, help="write the workers' logs here")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
