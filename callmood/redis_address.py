"""The address of a Redis and a client for it: one server, the master that Sentinels name, or a cluster.

The client repeats a failed command once, at once, on a new connection. More is the caller's decision.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

import redis
from redis.backoff import NoBackoff
from redis.cluster import RedisCluster
from redis.connection import Connection, parse_url
from redis.retry import Retry
from redis.sentinel import Sentinel

_SENTINEL_PORT: Final = 26379
_HEALTH_CHECK_S: Final = 15
_ESCAPE: Final = "In a password, write / as %2F, # as %23, ? as %3F, @ as %40 and [ as %5B"


class Address(NamedTuple):
    """One server, or several by Sentinel or Cluster.

    `url` has the user, TLS and the database number. With `sentinels` (`host:port`) its host and port are not used: the
    Sentinels name the server that is the `master` now. With `is_cluster` it is the address of one of the nodes.
    `options` are further client arguments of redis-py, such as `ssl_ca_certs` or `credential_provider`.
    """

    url: str
    sentinels: tuple[str, ...] = ()
    master: str = "mymaster"
    sentinel_username: str | None = None
    sentinel_password: str | None = None
    is_cluster: bool = False
    options: Mapping[str, Any] = MappingProxyType({})


def connect(address: Address, *, timeout_s: float, **options: Any) -> Any:
    """A client that reconnects by itself, and after a failover to the server that is the master then.

    Args:
        address: of the server or servers.
        timeout_s: limit of one command, and of connecting.
        options: further client arguments of redis-py.

    Raises:
        redis.exceptions.RedisClusterException: no node of a cluster answers; the other kinds connect when first used.
        ValueError: not a Redis URL.
    """
    _refuse_wrong_parts(address.url)
    options |= {
        **address.options,
        "socket_timeout": timeout_s,
        "socket_connect_timeout": timeout_s,
        "health_check_interval": _HEALTH_CHECK_S,
        "retry": Retry(NoBackoff(), 1),
    }
    if address.is_cluster:
        return RedisCluster.from_url(address.url, **options)
    if not address.sentinels:
        return redis.Redis.from_url(address.url, **options)
    parsed: dict[str, Any] = dict(parse_url(address.url))  # type: ignore[no-untyped-call]
    files = {name: value for name, value in (parsed | options).items() if name.startswith("ssl_")}
    tls = {"ssl": True, **files} if parsed.pop("connection_class", None) else {}
    own = {name: value for name, value in parsed.items() if name not in {"host", "port"}}
    sentinels = Sentinel(  # type: ignore[no-untyped-call]
        [_host_and_port(sentinel) for sentinel in address.sentinels],
        sentinel_kwargs={
            "socket_timeout": timeout_s,
            "socket_connect_timeout": timeout_s,
            "username": address.sentinel_username,
            "password": address.sentinel_password,
            **tls,
        },
        **own | tls | options,
    )
    return sentinels.master_for(address.master)  # type: ignore[no-untyped-call]


def _refuse_wrong_parts(url: str) -> None:
    """The client would use database 0, raise a TypeError later, or tell a part of the password.

    Raises:
        ValueError: a part is wrong.
    """
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - raises
    except ValueError:
        raise ValueError(f"what follows the host is no port number. {_ESCAPE}") from None
    if parts.fragment:
        raise ValueError(f"it has a #. {_ESCAPE}")
    has_number = (parts.path.replace("/", "") or "0").isdecimal()
    if parts.scheme in ("redis", "rediss") and not has_number:
        raise ValueError(f"what follows the host and the port is no database number. {_ESCAPE}")
    options: dict[str, Any] = dict(parse_url(url))  # type: ignore[no-untyped-call]
    try:
        options.pop("connection_class", Connection)(**options)  # does not connect yet
    except TypeError as error:
        raise ValueError(f"unknown option {str(error).rpartition(' ')[2]}") from None


def _host_and_port(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return (host, int(port)) if host else (text, _SENTINEL_PORT)
