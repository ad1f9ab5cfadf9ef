"""The processes and their loops: supervisor, ingest, projector, inference."""
