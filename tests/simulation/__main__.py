"""`python -m tests.simulation --seed 12345` or `--seeds 0..100000`: live through seeds; a failure ends it."""
# ruff: noqa: T201 - a command prints

import argparse
import sys
import time
import traceback

from tests.simulation.run import prepare, quiet_logs

_PROGRESS_S = 5.0
_LINE = 600


def main() -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation")
    chosen = parser.add_mutually_exclusive_group(required=True)
    chosen.add_argument("--seed", type=int, help="one seed; prints all that happened in it")
    chosen.add_argument("--seeds", type=_seeds, metavar="FIRST..LAST")
    parser.add_argument("--hostile", action="store_true", help="a hostile producer in each seed; default: in some")
    parser.add_argument("--keep-going", action="store_true", help="count failures instead of ending at the first")
    arguments = parser.parse_args()
    with quiet_logs():
        if arguments.seed is not None:
            return _show(arguments.seed, is_hostile=arguments.hostile or None)
        return _run(arguments.seeds, is_hostile=arguments.hostile or None, keep_going=arguments.keep_going)


def _run(seeds: range, *, is_hostile: bool | None, keep_going: bool) -> int:
    began_s = shown_s = time.monotonic()
    done = failed = 0
    for seed in seeds:
        done += 1
        try:
            prepare(seed, is_hostile=is_hostile).run()
        except Exception as error:  # noqa: BLE001 - whatever goes wrong in a seed is a finding
            failed += 1
            print(f"seed {seed}: {type(error).__name__} {error}"[:_LINE])
            print(f"reproduce: python -m tests.simulation --seed {seed}{' --hostile' * bool(is_hostile)}", flush=True)
            if not keep_going:
                break
        if time.monotonic() - shown_s > _PROGRESS_S:
            shown_s = time.monotonic()
            print(f"{done} of {len(seeds)} seeds, {done / (shown_s - began_s):.0f}/s, {failed} failed", flush=True)
    print(f"{done} seeds in {time.monotonic() - began_s:.1f} s, {failed} failed")
    return min(failed, 1)


def _show(seed: int, *, is_hostile: bool | None) -> int:
    world, failure = prepare(seed, is_hostile=is_hostile), ""
    try:
        world.run()
    except Exception:  # noqa: BLE001 - as above
        failure = traceback.format_exc()
    for at_s, who, what in world.history:
        print(f"{at_s:9.3f} {who:10} {' '.join(map(str, what))}")
    print(failure or f"seed {seed}: {world.utterances} utterances, every one once")
    return int(bool(failure))


def _seeds(text: str) -> range:
    first, _, last = text.partition("..")
    return range(int(first), int(last or first) + 1)


if __name__ == "__main__":
    sys.exit(main())
