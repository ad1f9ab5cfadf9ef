"""`callmood dashboard`: the page for supervisors, over the results in Redis."""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

import structlog

from callmood.worker import settings
from callmood.worker.adapters.redis_client import redis_address, redis_errors
from callmood.worker.errors import ConfigurationError
from callmood.worker.logs import call_hash, configure

if TYPE_CHECKING:
    from callmood.dashboard.page.access import Viewer

_LOCAL: Final = {"127.0.0.1", "::1", "localhost"}

log: Final = structlog.get_logger()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on; default: 127.0.0.1")
    parser.add_argument("--port", type=int, default=8090, help="port; default: 8090")
    parser.add_argument("--token-file", type=Path, help="file with the token that all viewers log in with")
    parser.add_argument(
        "--access-file",
        type=Path,
        help="TOML file with the token of each viewer, and the queues that the viewer is allowed to see",
    )
    parser.add_argument(
        "--queue-header",
        metavar="NAME",
        help="header in which your proxy names the allowed queues of the viewer, comma-separated or *",
    )
    parser.add_argument("--listen", metavar="URL", help="link into the phone system, with {call} for the call id")
    parser.add_argument(
        "--history",
        type=Path,
        metavar="FOLDER",
        help="folder with files of `callmood export --format csv`, for trends",
    )
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
        viewers=_viewers(arguments),
        queue_header=arguments.queue_header,
        listen=arguments.listen,
        recording=arguments.recording,
        history=arguments.history,
        audit=_audit,
    )
    host = f"[{arguments.host}]" if ":" in arguments.host else arguments.host
    print(f"http://{host}:{arguments.port}/", flush=True)
    with redis_errors():
        serve(
            redis_address(configured.redis),
            configured.redis.prefix,
            options,
            host=arguments.host,
            port=arguments.port,
        )
    return 0


def _viewers(arguments: argparse.Namespace) -> "tuple[Viewer, ...]":
    """Everybody who may log in; nobody has to on this machine."""
    from callmood.dashboard.page.access import SHORTEST_TOKEN, Viewer, read_viewers  # noqa: PLC0415 - an extra

    token_file, access_file = arguments.token_file, arguments.access_file
    if token_file and access_file:
        raise ConfigurationError("--token-file and --access-file exclude each other")
    if not (token_file or access_file):
        if arguments.host not in _LOCAL:
            raise ConfigurationError(
                f"other machines can reach --host {arguments.host}: set --token-file or --access-file"
            )
        return ()
    path = token_file or access_file
    try:
        if access_file:
            return read_viewers(access_file)
        token = token_file.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}") from error
    except ValueError as error:
        raise ConfigurationError(f"{path}: {error}") from error
    if len(token) < SHORTEST_TOKEN:
        raise ConfigurationError(f"{path}: a token has at least {SHORTEST_TOKEN} characters")
    return (Viewer(token=token),)


def _audit(event: str, fields: Mapping[str, str]) -> None:
    if "call" in fields:
        log.info("access to a call", action=event, call=call_hash(fields["call"]), user=fields["user"])
    else:
        log.warning("login was refused", user=fields["user"])
