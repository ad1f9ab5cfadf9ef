"""`python -m tests.cpus [--quick]`: the engine's tests, once for each smaller CPU that this one can behave like.

oneDNN and torch read from the environment how much of the CPU they may use. A test that is skipped under one setting
runs under another; those that are skipped under all are listed. Exits with 1 if a test fails under any setting.
"""
# ruff: noqa: T201 - a command prints

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple
from xml.etree import ElementTree as ET

_ROOT: Final = Path(__file__).parents[1]
_FOLDERS: Final = ("unit", "property")
_ENGINE: Final = "callmood.worker.engine"


class Setting(NamedTuple):
    """An environment in which a CPU that has `flags` behaves like one that has no more than them."""

    name: str
    flags: frozenset[str]
    environment: dict[str, str]


_AVX2: Final = frozenset({"sse4_1", "avx2"})
_AVX512: Final = _AVX2 | {"avx512f", "avx512bw", "avx512dq", "avx512vl"}
_VNNI: Final = _AVX512 | {"avx512_vnni"}
_BF16: Final = _VNNI | {"avx512_bf16"}
_AMX: Final = _BF16 | {"avx_vnni", "amx_tile", "amx_int8", "amx_bf16"}


def _setting(name: str, flags: frozenset[str], onednn: str, torch: str) -> Setting:
    return Setting(name, flags, {"ONEDNN_MAX_CPU_ISA": onednn, "ATEN_CPU_CAPABILITY": torch})


SETTINGS: Final = (
    _setting("sse4.1", frozenset({"sse4_1"}), "SSE41", "default"),
    _setting("avx2", _AVX2, "AVX2", "avx2"),
    _setting("avx2_vnni", _AVX2 | {"avx_vnni"}, "AVX2_VNNI", "avx2"),
    _setting("avx512", _AVX512, "AVX512_CORE", "avx512"),
    _setting("avx512_vnni", _VNNI, "AVX512_CORE_VNNI", "avx512"),
    _setting("avx512_bf16", _BF16, "AVX512_CORE_BF16", "avx512"),
    _setting("amx", _AMX, "AVX512_CORE_AMX", "avx512"),
)
NATIVE: Final = Setting("native", frozenset(), {})
_NAMED: Final = _AMX


class Outcome(NamedTuple):
    """What became of the tests under one setting."""

    passed: frozenset[str]
    skipped: dict[str, str]
    failed: frozenset[str]
    exit_code: int


def cpu_flags(cpuinfo: str) -> frozenset[str]:
    """The flags in the text of /proc/cpuinfo; none if it has no such line."""
    for line in cpuinfo.splitlines():
        name, _, flags = line.partition(":")
        if name.strip() == "flags":
            return frozenset(flags.split())
    return frozenset()


def settings_of(flags: frozenset[str]) -> list[Setting]:
    """Those under which a CPU with these flags behaves like a smaller one, and last the CPU as it is."""
    used = flags & _NAMED
    return [setting for setting in SETTINGS if setting.flags <= used and not used <= setting.flags] + [NATIVE]


def files() -> list[Path]:
    """The test files that import the engine, except its batcher alone."""
    found = []
    for folder in _FOLDERS:
        for path in sorted((_ROOT / "tests" / folder).glob("test_*.py")):
            text = path.read_text(encoding="utf-8").replace(f"{_ENGINE}.batch", "")
            if _ENGINE in text:
                found.append(path)
    return found


def run(setting: Setting, paths: Sequence[Path]) -> Outcome:
    """Run the tests in a process of their own, under the setting."""
    with tempfile.TemporaryDirectory(prefix="callmood-") as folder:
        report = Path(folder, "report.xml")
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            "--numprocesses=auto",
            "--dist=worksteal",
            f"--junitxml={report}",
            *map(str, paths),
        ]
        ended = subprocess.run(
            command, cwd=_ROOT, env=os.environ | setting.environment, capture_output=True, text=True, check=False
        )
        if ended.returncode:
            print(ended.stdout, ended.stderr, sep="\n")
        passed, skipped, failed = set(), {}, set()
        for name, reason, is_failure in _cases(report):
            if is_failure:
                failed.add(name)
            elif reason is not None:
                skipped[name] = reason
            else:
                passed.add(name)
        return Outcome(frozenset(passed), skipped, frozenset(failed), ended.returncode)


def _cases(report: Path) -> Iterator[tuple[str, str | None, bool]]:
    """Each test: its name, why it was skipped, whether it failed."""
    if not report.exists():
        return
    for case in ET.parse(report).iter("testcase"):
        skipped = case.find("skipped")
        is_failure = case.find("failure") is not None or case.find("error") is not None
        yield (
            f"{case.get('classname')}::{case.get('name')}",
            None if skipped is None else skipped.get("message"),
            is_failure,
        )


def never_run(outcomes: Sequence[Outcome]) -> dict[str, str]:
    """Tests that were skipped under every setting, and why."""
    first, *others = outcomes
    return {name: why for name, why in first.skipped.items() if all(name in other.skipped for other in others)}


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.cpus", description=__doc__)
    parser.add_argument(
        "--quick",
        action="store_true",
        help="as AVX2 alone, without the properties: what `make light` adds to a run of all tests on the CPU as it is",
    )
    quick = parser.parse_args(arguments).quick
    settings = settings_of(cpu_flags(Path("/proc/cpuinfo").read_text(encoding="utf-8")))
    paths = files()
    if quick:
        settings = [setting for setting in settings if setting.name == "avx2"]
        paths = [path for path in paths if path.parent.name == "unit"]
        if not settings:
            print("this CPU has nothing above AVX2: the other tests ran under that setting")
            return 0
    outcomes = []
    print(f"{'setting':12} {'passed':>8} {'skipped':>8} {'failed':>8} {'s':>6}", flush=True)
    for setting in settings:
        began_s = time.monotonic()
        outcome = run(setting, paths)
        counts = (len(outcome.passed), len(outcome.skipped), len(outcome.failed))
        print(
            f"{setting.name:12} {counts[0]:8} {counts[1]:8} {counts[2]:8} {time.monotonic() - began_s:6.0f}", flush=True
        )
        outcomes.append(outcome)
    if len(outcomes) > 1 and (never := never_run(outcomes)):
        print("skipped under every setting:")
        for name, why in sorted(never.items()):
            print(f"  {name}: {why}")
    return int(any(outcome.failed or outcome.exit_code for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main())
