"""One stream: chunks in order, media time, voice detection, utterances."""
