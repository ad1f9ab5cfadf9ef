"""Runs the page. SIGTERM ends it: uvicorn itself would wait for the open streams (Kludex/uvicorn #2829)."""

from types import FrameType
from typing import Final

import uvicorn
from starlette.applications import Starlette

from callmood.dashboard.page.app import PageOptions, Viewers, create_app
from callmood.dashboard.page.floor import Floor
from callmood.dashboard.reader import Dashboard
from callmood.redis_address import Address

_GRACE_S: Final = 2
"""After SIGTERM, for answers that clients are still reading."""


class Server(uvicorn.Server):
    """Serves the page until SIGTERM, also if a client has stopped reading.

    Args:
        app: the page.
        viewers: those that wait for its news.
        host: address to listen on.
        port: to listen on.
    """

    def __init__(self, app: Starlette, viewers: Viewers, *, host: str, port: int) -> None:
        quiet = uvicorn.Config(
            app,
            host=host,
            port=port,
            log_level="warning",
            access_log=False,
            lifespan="off",
            timeout_graceful_shutdown=_GRACE_S,
        )
        super().__init__(quiet)
        self._viewers = viewers

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """End the streams, then as uvicorn does."""
        self._viewers.is_over = True
        self._viewers.notify()
        super().handle_exit(sig, frame)


def serve(address: Address, prefix: str, options: PageOptions, *, host: str, port: int) -> None:
    """Serve until SIGTERM or Ctrl-C.

    Raises:
        OSError: the port is taken.
    """
    viewers = Viewers()
    floor = Floor(address, prefix, viewers.notify)
    with Dashboard(address, prefix) as dashboard:
        app = create_app(floor, dashboard, viewers, options)
        floor.start()
        try:
            Server(app, viewers, host=host, port=port).run()
        finally:
            floor.stop()
