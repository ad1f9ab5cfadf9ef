"""The inference engine: utterances into batches, batches through the model."""
