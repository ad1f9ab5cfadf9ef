"""Makes the bundles that `worker.model` loads.

`synthesize` (or a corpus of your own) -> `manifest` -> `data` -> `train` (`freeze` says what learns) -> `calibrate` ->
`evaluate` -> `export`. A speaker is in one split only; the code refuses anything else.
"""
