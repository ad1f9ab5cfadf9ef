"""One partition: its calls, its clock, its ended calls, and the offsets that are safe to commit."""
