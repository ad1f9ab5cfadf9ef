"""Makes the bundles that `worker.model` loads.

`synthetic.synthesize`, or `corpora` -> `manifest` -> `protocols` -> `loop` (`networks.freeze` decides what learns) ->
`results` (calibrate, evaluate, export). A speaker is in one split only, unless the protocol allows more.
"""
