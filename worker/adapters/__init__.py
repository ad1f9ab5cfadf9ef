"""Kafka and Redis: everything that talks to either."""
