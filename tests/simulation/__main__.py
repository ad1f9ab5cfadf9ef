"""`python -m tests.simulation --seed 12345` or `--seeds 0..100000`: live through seeds; a failure ends it."""

import argparse
import sys
import time
import traceback

from tests.simulation.run import prepare, quiet_logs

_PROGRESS_S = 5.0


def main() -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation")
    chosen = parser.add_mutually_exclusive_group(required=True)
    chosen.add_argument("--seed", type=int, help="one seed; prints what happened")
    chosen.add_argument("--seeds", type=_seeds, help="FIRST..LAST")
    parser.add_argument("--keep-going", action="store_true", help="count failures instead of ending at the first")
    arguments = parser.parse_args()
    quiet_logs()
    seeds = [arguments.seed] if arguments.seed is not None else arguments.seeds
    began_s = shown_s = time.monotonic()
    failed = 0
    for done, seed in enumerate(seeds, 1):
        try:
            world = prepare(seed)
            world.run()
        except Exception as error:  # noqa: BLE001 - whatever goes wrong in a seed is a finding
            failed += 1
            if arguments.seed is not None:
                traceback.print_exc()
            print(f"seed {seed}: {type(error).__name__} {error}"[:600])
            print(f"reproduce: python -m tests.simulation --seed {seed}", flush=True)
            if not arguments.keep_going:
                break
        if time.monotonic() - shown_s > _PROGRESS_S:
            shown_s = time.monotonic()
            print(f"{done} of {len(seeds)} seeds, {done / (shown_s - began_s):.0f} a second, {failed} failed", flush=True)
    if arguments.seed is not None:
        for at_s, who, what in world.history:
            print(f"{at_s:9.3f} {who:10} {' '.join(map(str, what))}")
    print(f"{done} seeds in {time.monotonic() - began_s:.1f} s, {failed} failed")
    return min(failed, 1)


def _seeds(text: str) -> range:
    first, _, last = text.partition("..")
    return range(int(first), int(last or first) + 1)


if __name__ == "__main__":
    sys.exit(main())
