"""The Kafka of the settings: where it is, who we are to it, and what its refusals mean."""

import logging
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from kafka.errors import AuthorizationError, KafkaError, SaslAuthenticationFailedError, UnsupportedSaslMechanismError
from kafka.net.sasl import register_sasl_mechanism
from kafka.net.sasl.oauth import AbstractTokenProvider
from kafka.net.sasl.plain import SaslMechanismPlain
from kafka.net.sasl.scram import SaslMechanismScram
from kafka.net.transport import KafkaSSLTransport, KafkaTCPTransport

from callmood.worker.adapters.secret_file import SecretFile
from callmood.worker.errors import ConfigurationError, KafkaUnavailable
from callmood.worker.settings import KafkaSettings, Settings

_LOST = (ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError)  # a broker that is gone refuses nobody
_REFUSALS = (SaslAuthenticationFailedError, UnsupportedSaslMechanismError, AuthorizationError, ssl.SSLError)


def _with_last_word(receive: Callable[[Any], tuple[bytes, Any]]) -> Callable[[Any], tuple[bytes, Any]]:
    """kafka-python 3.0.12 throws away what it read if the end of the connection came with it: a refused login."""

    def receive_all(transport: Any) -> tuple[bytes, Any]:
        data, error = receive(transport)
        return data, None if data else error  # the end is met again at the next read

    return receive_all


for _transport in (KafkaTCPTransport, KafkaSSLTransport):
    _transport._sock_recv = _with_last_word(_transport._sock_recv)  # noqa: SLF001 - as above


class _Reread:
    """Asks for the password at each login: kafka-python itself would keep the one that it was made with."""

    def __init__(self, **config: Any) -> None:
        password = config["sasl_plain_password"]
        super().__init__(
            **config | {"sasl_plain_password": password.read() if isinstance(password, SecretFile) else password}
        )


class _Plain(_Reread, SaslMechanismPlain):  # type: ignore[misc]  # kafka-python has no types
    pass


class _Scram(_Reread, SaslMechanismScram):  # type: ignore[misc]  # as above
    pass


class _Token(AbstractTokenProvider):  # type: ignore[misc]  # as above
    def __init__(self, file: SecretFile) -> None:
        self._file = file

    def token(self) -> str:
        return self._file.read()


def connection(settings: KafkaSettings) -> dict[str, Any]:
    """The client arguments that say where Kafka is and who we are.

    Files of certificates, passwords and tokens are read again for every connection, so that they may change.

    Raises:
        ConfigurationError: a file is not there, or is empty.
    """
    for name in ("ssl_ca_file", "ssl_cert_file", "ssl_key_file"):
        path = getattr(settings, name)
        if path is not None and not path.is_file():
            raise ConfigurationError(f"CALLMOOD_KAFKA__{name.upper()}: there is no file {path}")
    return {
        "bootstrap_servers": settings.bootstrap_servers.split(","),
        "security_protocol": settings.security_protocol,
        **_login(settings),
        "ssl_cafile": str(settings.ssl_ca_file) if settings.ssl_ca_file else None,
        "ssl_certfile": str(settings.ssl_cert_file) if settings.ssl_cert_file else None,
        "ssl_keyfile": str(settings.ssl_key_file) if settings.ssl_key_file else None,
        "request_timeout_ms": settings.request_timeout_ms,
        "bootstrap_timeout_ms": settings.request_timeout_ms * 2,
    }


def _login(settings: KafkaSettings) -> dict[str, Any]:
    login: dict[str, Any] = {
        "sasl_mechanism": settings.sasl_mechanism,
        "sasl_plain_username": settings.sasl_username,
        "sasl_plain_password": settings.sasl_password.get_secret_value() if settings.sasl_password else None,
    }
    if settings.sasl_password_file is not None:
        for name, mechanism in (("PLAIN", _Plain), ("SCRAM-SHA-256", _Scram), ("SCRAM-SHA-512", _Scram)):
            register_sasl_mechanism(name, mechanism, overwrite=True)
        login["sasl_plain_password"] = SecretFile("CALLMOOD_KAFKA__SASL_PASSWORD_FILE", settings.sasl_password_file)
    if settings.sasl_token_file is not None:
        token = SecretFile("CALLMOOD_KAFKA__SASL_TOKEN_FILE", settings.sasl_token_file)
        login["sasl_oauth_token_provider"] = _Token(token)
    return login


@contextmanager
def kafka_errors(settings: Settings) -> Iterator[None]:
    """What kafka-python raises, as the errors that say what to do."""
    try:
        yield
    except (KafkaError, ssl.SSLError) as error:
        refusal = _refusal(error)
        if isinstance(refusal, ssl.SSLError):
            told = f"no TLS with Kafka: {refusal}. Check the CALLMOOD_KAFKA__SSL_ settings and the certificates' dates"
            raise ConfigurationError(told) from error
        if refusal is not None:
            told = f"Kafka refuses us: {refusal}. Check the CALLMOOD_KAFKA__SASL_ settings, and `callmood acls`"
            raise ConfigurationError(told) from error
        raise KafkaUnavailable(f"Kafka at {settings.kafka.bootstrap_servers}: {error}") from error


def _refusal(error: BaseException | None) -> BaseException | None:
    """The refusal that an error is, or comes from: a lost connection holds it among its arguments."""
    if isinstance(error, _LOST):
        return None
    if error is None or isinstance(error, _REFUSALS):
        return error
    causes = [argument for argument in error.args if isinstance(argument, BaseException)]
    causes += [cause for cause in (error.__cause__ or error.__context__,) if cause is not None]
    return next((found for cause in causes if (found := _refusal(cause)) is not None), None)


class _Refusals(logging.Handler):
    """Notes a refused login or handshake in what kafka-python logs."""

    newest: BaseException | None = None

    def emit(self, record: logging.LogRecord) -> None:
        for value in record.args if isinstance(record.args, tuple) else ():
            if isinstance(value, BaseException) and (refusal := _refusal(value)) is not None:
                self.newest = refusal


@contextmanager
def refusals_raised() -> Iterator[None]:
    """kafka-python 3.0.12 only logs a refusal, tries again, and ends in a timeout that does not say why."""
    refusals, logger = _Refusals(), logging.getLogger("kafka.net")
    logger.addHandler(refusals)
    try:
        yield
    except KafkaError as error:
        if refusals.newest is None or _refusal(error) is not None:
            raise
        raise refusals.newest from None
    finally:
        logger.removeHandler(refusals)
