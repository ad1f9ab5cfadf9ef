"""All that the fork server of the tests imports before its first process: what takes long, and nothing with state.

`prometheus_client` must stay out: it decides at its import where metrics go.
"""

import gc
import importlib
from contextlib import suppress

for name in (
    "torch.utils.tensorboard",
    "transformers.models.hubert.modeling_hubert",
    "callmood.training.__main__",
    "callmood.worker.settings",
    "kafka",
    "msgpack",
    "numpy",
    "opentelemetry.sdk.trace",
    "redis",
    "webrtcvad",
    "zmq",
):
    with suppress(ImportError):  # training alone needs fewer
        importlib.import_module(name)

gc.collect()
gc.freeze()  # no collection of a forked process looks at it again
