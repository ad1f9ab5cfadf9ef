"""`callmood dashboard`: the page for supervisors, over the results in Redis."""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import structlog

from callmood.worker import settings
from callmood.worker.adapters.redis_client import redis_address, redis_errors
from callmood.worker.errors import ConfigurationError
from callmood.worker.logs import call_hash, configure

_LOCAL: Final = {"127.0.0.1", "::1", "localhost"}
_SHORTEST: Final = 16

log: Final = structlog.get_logger()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at; default: 127.0.0.1")
    parser.add_argument("--port", type=int, default=8090, help="port; default: 8090")
    parser.add_argument(
        "--token-file", type=Path, help="file with the token that viewers log in with; required beyond this machine"
    )
    parser.add_argument("--listen", metavar="URL", help="link into the phone system, with {call} for the call id")
    parser.add_argument("--recording", metavar="URL", help="link into the recorder, with {call} and {ms}")


def run(arguments: argparse.Namespace) -> int:
    """Serve until SIGTERM or Ctrl-C."""
    try:
        from callmood.dashboard.page.app import PageOptions  # noqa: PLC0415 - an extra
        from callmood.dashboard.page.server import serve  # noqa: PLC0415 - as above
    except ImportError as error:
        raise ConfigurationError("`callmood dashboard` needs: pip install 'callmood[page]'") from error
    configured = settings.load()
    configure(configured.log, process="dashboard")
    options = PageOptions(
        token=_token(arguments.token_file, arguments.host),
        listen=arguments.listen,
        recording=arguments.recording,
        audit=_audit,
    )
    print(f"http://{arguments.host}:{arguments.port}/", flush=True)
    with redis_errors():
        serve(
            redis_address(configured.redis),
            configured.redis.prefix,
            options,
            host=arguments.host,
            port=arguments.port,
        )
    return 0


def _token(path: Path | None, host: str) -> str | None:
    if path is None:
        if host not in _LOCAL:
            raise ConfigurationError(f"--host {host} is reached by other machines: set --token-file")
        return None
    try:
        token = path.read_text().strip()
    except OSError as error:
        raise ConfigurationError(f"--token-file {path}: {error.strerror}") from error
    if len(token) < _SHORTEST:
        raise ConfigurationError(f"--token-file {path}: a token has at least {_SHORTEST} characters")
    return token


def _audit(event: str, fields: Mapping[str, str]) -> None:
    log.info("page was used", action=event, call=call_hash(fields["call"]), user=fields["user"])
