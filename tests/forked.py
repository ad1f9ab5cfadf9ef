"""`callmood-train` in processes of its own, forked from a server that has imported torch and transformers once."""

import multiprocessing
import os
import sys
from collections.abc import Mapping, Sequence
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import torch

from callmood.training.__main__ import main

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["forked", "torch.utils.tensorboard"])


def start(arguments: Sequence[str], environment: Mapping[str, str] | None = None) -> ForkServerProcess:
    """Start a command; its exit code is the process' own. What it writes on standard error is the test's."""
    tests = Path(__file__).parent
    os.environ["PYTHONPATH"] = os.pathsep.join([str(tests.parent), str(tests), os.environ.get("PYTHONPATH", "")])
    process = _CONTEXT.Process(target=_run, args=(list(arguments), dict(environment or {})))
    process.start()
    return process


def _run(arguments: list[str], environment: dict[str, str]) -> None:
    os.environ.update(environment)
    torch.set_num_threads(1)
    sys.exit(main(arguments))
