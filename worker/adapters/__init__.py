"""Kafka and Redis: all code that uses one of them."""
