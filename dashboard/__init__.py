"""A typed reader of the results in Redis (`schemas/redis.md`), and the live table in the terminal."""

from callmood.dashboard.reader import CallView, Dashboard, News
from callmood.redis_address import Address

__all__ = ["Address", "CallView", "Dashboard", "News"]
