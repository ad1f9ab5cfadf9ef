"""From production back to training: sample published utterances, cut their audio, join annotators' labels."""
