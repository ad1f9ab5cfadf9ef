"""The model: checkpoints, encoder, pooling, head. Shared with the training package."""
