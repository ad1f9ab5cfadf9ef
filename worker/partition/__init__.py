"""One partition: its calls, its clock, its ended calls, and what is safe to commit."""
