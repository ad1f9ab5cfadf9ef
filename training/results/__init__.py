"""What comes out of a training: calibration, figures, reports, bundles, conversion."""
