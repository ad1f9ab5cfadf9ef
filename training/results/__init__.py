"""The results of a training run: calibration, figures, reports, bundles, conversion."""
