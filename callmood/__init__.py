"""Emotion from the voice in call-centre calls.

The packages, lowest first; each imports only those before it:

- `callmood.schemas`: the contract, i.e. the records on Kafka and the keys in Redis.
- `callmood.redis_address`: the address of a Redis, by itself, behind Sentinels or as a cluster, and a client for it.
- `callmood.dashboard`: a typed reader of the results in Redis, and the live table in the terminal.
- `callmood.worker`: call audio in, one emotion per utterance and one live aggregate per call out.
- `callmood.training`: makes the model bundles that the worker loads.
- `callmood.bench`: measures the parts on this machine.

In the repository each of them is a folder at the top, and a symbolic link beside this file gives it its import name.
"""
