"""The Redis of the settings: one server, the master that Sentinels name, or a cluster."""

from typing import Any

from redis.exceptions import RedisClusterException

from dashboard.connection import Address, connect
from worker.errors import ConfigurationError, StoreUnavailable
from worker.settings import RedisSettings


def redis_address(settings: RedisSettings) -> Address:
    """Where the results are, as set."""
    password = settings.sentinel_password
    return Address(
        settings.url.get_secret_value(),
        settings.sentinels,
        settings.sentinel_master,
        settings.sentinel_username,
        password.get_secret_value() if password else None,
        settings.cluster,
    )


def connect_redis(settings: RedisSettings) -> Any:
    """A client with a limit on every command; it reconnects by itself.

    Raises:
        ConfigurationError: the address is none.
        StoreUnavailable: no node of a cluster answers.
    """
    try:
        return connect(redis_address(settings), timeout_s=settings.timeout_s)
    except ValueError as error:
        raise ConfigurationError(f"CALLMOOD_REDIS__URL: {error}") from error
    except RedisClusterException as error:
        raise StoreUnavailable(f"redis cluster: {error}") from error
