"""One training: data, augmentation, loss, schedule, devices, checkpoints of a run."""
