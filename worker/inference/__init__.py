"""The inference process, and the socket between it and the ingest processes."""
