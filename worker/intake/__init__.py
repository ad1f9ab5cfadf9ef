"""Kafka records into chunks: headers, JSON and Twilio messages."""
