"""The synthetic corpus: voices, prosody, telephone lines, whole calls."""
