"""Trains the models that `worker.model` loads.

`synthetic.synthesize`, or `corpora` -> `manifest` -> `protocols` -> `loop` (`networks.freeze` selects the parameters
that learn) -> `results` (calibrate, evaluate, export). A speaker is in one split only, unless the protocol allows more.
"""
