"""Runs the page. SIGTERM ends it at once: uvicorn itself would wait for the open streams (Kludex/uvicorn #2829)."""

from types import FrameType

import uvicorn

from callmood.dashboard.page.app import PageOptions, Viewers, create_app
from callmood.dashboard.page.floor import Floor
from callmood.dashboard.reader import Dashboard
from callmood.redis_address import Address


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, viewers: Viewers) -> None:
        super().__init__(config)
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
        config = uvicorn.Config(app, host=host, port=port, log_level="warning", access_log=False, lifespan="off")
        floor.start()
        try:
            _Server(config, viewers).run()
        finally:
            floor.stop()
