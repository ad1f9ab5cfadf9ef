"""Checks that logs and metrics of workers contain no call ids and no passwords."""

import re
from collections.abc import Iterable
from typing import Final

USER: Final = "worker"
PASSWORD: Final = "only-the-worker-knows-this"


def told(texts: Iterable[str], seed: int) -> list[str]:
    """The lines of logs and metrics that name a call of this seed, or the workers' password."""
    secret = re.compile(rf"chaos-{seed}-(\d{{5}}|tick)|{re.escape(PASSWORD)}")
    return [line for text in texts for line in text.splitlines() if secret.search(line)]
