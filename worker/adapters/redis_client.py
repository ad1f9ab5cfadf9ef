"""Builds Redis clients from the settings, and translates their errors."""

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from redis.credentials import CredentialProvider
from redis.exceptions import (
    AuthenticationError,
    ClusterError,
    InvalidResponse,
    MovedError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisClusterException,
    ResponseError,
    TryAgainError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.sentinel import MasterNotFoundError

from callmood.redis_address import Address, connect
from callmood.worker.adapters.secret_file import SecretFile, require_file
from callmood.worker.errors import CallmoodError, ConfigurationError, StoreRefused, StoreUnavailable
from callmood.worker.server_settings import RedisSettings

_PASSING = (
    RedisConnectionError,
    RedisTimeoutError,
    ReadOnlyError,
    OutOfMemoryError,
    TryAgainError,
    ClusterError,
    RedisClusterException,
)
_CUT = (ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError)  # the server restarts, or wants a certificate
_PASSING_WORDS = ("NOREPLICAS", "MISCONF", "BUSY")  # errors that the client has no class for
_ADVICE = {
    "WRONGTYPE": "Another program uses the worker's keys: set CALLMOOD_REDIS__PREFIX",
    "MOVED": "The server is a node of a cluster: set CALLMOOD_REDIS__CLUSTER=true",
    "DB index is out of range": "Set an existing database number in CALLMOOD_REDIS__URL",
    "value is not an integer or out of range": "Set an existing database number in CALLMOOD_REDIS__URL",
    "SELECT is not allowed in cluster mode": "A cluster has database 0 only: change CALLMOOD_REDIS__URL",
    "DENIED": "The server accepts no connection from other machines without a password: set one there and in "
    "CALLMOOD_REDIS__URL",
    "unknown command 'SENTINEL'": "CALLMOOD_REDIS__SENTINELS names a server that is no Sentinel",
    "unknown command": "The server of CALLMOOD_REDIS__URL is a Sentinel (set CALLMOOD_REDIS__SENTINELS), is too old, "
    "or has this command switched off",
}
"""What to do about an error, by its first words."""
_ARGUMENTS = ", with args beginning with"
"""What follows may hold a call id."""
_NO_CLUSTER = "Cluster mode is not enabled"


class _Login(CredentialProvider):
    """Reads the password again for every connection."""

    def __init__(self, username: str | None, password: SecretFile) -> None:
        self._username = username
        self._password = password

    def get_credentials(self) -> tuple[str] | tuple[str, str]:
        password = self._password.read()
        return (self._username, password) if self._username else (password,)


def redis_address(settings: RedisSettings) -> Address:
    """The address and the login of the settings. Files are read for every connection, so they may be replaced.

    Raises:
        ConfigurationError: a file is missing or empty.
    """
    password = settings.sentinel_password
    return Address(
        settings.url.get_secret_value(),
        settings.sentinels,
        settings.sentinel_master,
        settings.sentinel_username,
        password.get_secret_value() if password else None,
        settings.cluster,
        _files(settings),
    )


def _files(settings: RedisSettings) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for name, option in (
        ("ssl_ca_file", "ssl_ca_certs"),
        ("ssl_cert_file", "ssl_certfile"),
        ("ssl_key_file", "ssl_keyfile"),
    ):
        path = getattr(settings, name)
        if path is not None:
            require_file(f"CALLMOOD_REDIS__{name.upper()}", path)
            options[option] = str(path)
    if settings.password_file is not None:
        password = SecretFile("CALLMOOD_REDIS__PASSWORD_FILE", settings.password_file)
        options["credential_provider"] = _Login(settings.username, password)
    return options


def connect_redis(settings: RedisSettings) -> Any:
    """A client with a limit on every command; it reconnects by itself.

    Raises:
        ConfigurationError: the URL is invalid, a file is missing, or a cluster refuses the login.
        StoreUnavailable: no node of a cluster answers.
    """
    try:
        with redis_errors():
            return connect(redis_address(settings), timeout_s=settings.timeout_s)
    except ValueError as error:
        raise ConfigurationError(f"CALLMOOD_REDIS__URL: {error}") from error


@contextmanager
def redis_errors(*, is_known: bool = False) -> Iterator[None]:
    """Separate errors that pass (a failover, a full disk) from those that do not (a wrong password, a bug).

    With `is_known`, the server has answered as Redis before: another protocol, or TLS that fails, passes then.
    """
    try:
        yield
    except (AuthenticationError, NoPermissionError) as error:
        raise ConfigurationError(
            f"Redis refuses this user: {error}. Check CALLMOOD_REDIS__URL and the user's ACL in schemas/redis.md"
        ) from error
    except MasterNotFoundError as error:
        raise StoreUnavailable(
            "no Sentinel answers, or none has found a master. Check CALLMOOD_REDIS__SENTINELS and "
            "CALLMOOD_REDIS__SENTINEL_MASTER"
        ) from error
    except _PASSING as error:
        if _NO_CLUSTER in str(error):
            told = "Redis: the server is no node of a cluster. Set CALLMOOD_REDIS__CLUSTER=false"
            raise ConfigurationError(told) from error
        trouble = _tls_trouble(error)
        if trouble is None:
            told = f"Redis does not answer: {error}. Check host, port and scheme of CALLMOOD_REDIS__URL (rediss: TLS)"
            raise StoreUnavailable(told) from error
        told = f"TLS with Redis failed: {trouble}. Check the CALLMOOD_REDIS__SSL_ settings and the certificates' dates"
        if is_known or isinstance(trouble, _CUT):
            raise StoreUnavailable(told) from error
        raise ConfigurationError(told) from error
    except ResponseError as error:
        raise _answered(error) from error
    except InvalidResponse as error:
        if is_known:
            told = f"the server of CALLMOOD_REDIS__URL, or a proxy before it, does not answer as Redis does: {error}"
            raise StoreUnavailable(told) from error
        told = f"the server of CALLMOOD_REDIS__URL is no Redis: {error}. Check host and port"
        raise ConfigurationError(told) from error


def _answered(error: ResponseError) -> CallmoodError:
    """What an error that Redis answers with means."""
    if str(error).startswith(_PASSING_WORDS):
        return StoreUnavailable(f"Redis: {error}")
    words = (f"MOVED {error}" if isinstance(error, MovedError) else str(error)).partition(_ARGUMENTS)[0]
    advice = next((text for start, text in _ADVICE.items() if words.startswith(start)), None)
    if advice is None:
        return StoreRefused(f"Redis: {words}")
    return ConfigurationError(f"Redis: {words.partition('. ')[0]}. {advice}")


def refuse_eviction(client: Any) -> None:
    """Refuse a server that deletes keys when its memory is full: it would delete positions and call states.

    The check is skipped if the user is not allowed to run INFO.

    Raises:
        ConfigurationError: the server evicts.
        StoreUnavailable: Redis does not answer.
    """
    with redis_errors():
        try:
            answer = client.info("memory")
        except NoPermissionError:
            return
        nodes = answer.values() if "maxmemory_policy" not in answer else [answer]
        for node in nodes:
            if node.get("maxmemory") and node.get("maxmemory_policy") != "noeviction":
                raise ConfigurationError(
                    f"Redis deletes keys when its memory is full (maxmemory-policy {node['maxmemory_policy']}), and "
                    "with them the states of live calls: set maxmemory-policy noeviction"
                )


def _tls_trouble(error: BaseException | None) -> ssl.SSLError | None:
    """The TLS error that an error is or comes from, of this side or the server's."""
    if error is None or isinstance(error, ssl.SSLError):
        return error
    return _tls_trouble(error.__cause__ or error.__context__)
