"""The contract with the outside: what may stand on Kafka and in Redis. Imports nothing of ours."""
