"""The Redis of the settings: one server, the master that Sentinels name, or a cluster."""

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from redis.credentials import CredentialProvider
from redis.exceptions import (
    AuthenticationError,
    ClusterError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisClusterException,
    ResponseError,
    TryAgainError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from callmood.redis_address import Address, connect
from callmood.worker.adapters.secret_file import SecretFile
from callmood.worker.errors import ConfigurationError, StoreUnavailable
from callmood.worker.settings import RedisSettings

_PASSING = (
    RedisConnectionError,
    RedisTimeoutError,
    ReadOnlyError,
    OutOfMemoryError,
    TryAgainError,
    ClusterError,
    RedisClusterException,
)
_CUT = (ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError)  # a server that restarts, or wants a certificate
_PASSING_WORDS = ("NOREPLICAS", "MISCONF", "BUSY")  # errors that the client has no class for


class _Login(CredentialProvider):
    """Asked for every connection."""

    def __init__(self, username: str | None, password: SecretFile) -> None:
        self._username = username
        self._password = password

    def get_credentials(self) -> tuple[str] | tuple[str, str]:
        password = self._password.read()
        return (self._username, password) if self._username else (password,)


def redis_address(settings: RedisSettings) -> Address:
    """Where the results are, and who we are, as set. Files are read for every connection, so that they may change.

    Raises:
        ConfigurationError: a file is not there, or is empty.
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
            if not path.is_file():
                raise ConfigurationError(f"CALLMOOD_REDIS__{name.upper()}: there is no file {path}")
            options[option] = str(path)
    if settings.password_file is not None:
        password = SecretFile("CALLMOOD_REDIS__PASSWORD_FILE", settings.password_file)
        options["credential_provider"] = _Login(settings.username, password)
    return options


def connect_redis(settings: RedisSettings) -> Any:
    """A client with a limit on every command; it reconnects by itself.

    Raises:
        ConfigurationError: the address is none, a file is not there, or a cluster refuses us.
        StoreUnavailable: no node of a cluster answers.
    """
    try:
        with redis_errors():
            return connect(redis_address(settings), timeout_s=settings.timeout_s)
    except ValueError as error:
        raise ConfigurationError(f"CALLMOOD_REDIS__URL: {error}") from error


@contextmanager
def redis_errors() -> Iterator[None]:
    """Tell what will pass (a failover, a full disk) from what will not (a wrong password, a bug)."""
    try:
        yield
    except (AuthenticationError, NoPermissionError) as error:
        raise ConfigurationError(
            f"Redis refuses us: {error}. Check CALLMOOD_REDIS__URL and the user's ACL in schemas/redis.md"
        ) from error
    except _PASSING as error:
        trouble = _tls_trouble(error)
        if trouble is None:
            raise StoreUnavailable(f"Redis does not answer: {error}. Check CALLMOOD_REDIS__URL") from error
        told = f"no TLS with Redis: {trouble}. Check the CALLMOOD_REDIS__SSL_ settings and the certificates' dates"
        if isinstance(trouble, _CUT):
            raise StoreUnavailable(told) from error
        raise ConfigurationError(told) from error
    except ResponseError as error:
        if str(error).startswith(_PASSING_WORDS):
            raise StoreUnavailable(f"Redis: {error}") from error
        if str(error).startswith("WRONGTYPE"):
            raise ConfigurationError(
                f"Redis: {error}. Another program uses our keys: set CALLMOOD_REDIS__PREFIX"
            ) from error
        raise


def _tls_trouble(error: BaseException | None) -> ssl.SSLError | None:
    """What went wrong in TLS, ours or the server's, if that is where an error comes from."""
    if error is None or isinstance(error, ssl.SSLError):
        return error
    return _tls_trouble(error.__cause__ or error.__context__)
