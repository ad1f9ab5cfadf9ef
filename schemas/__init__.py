"""The contract with other systems: all records on Kafka and in Redis. Imports no other package of callmood."""
