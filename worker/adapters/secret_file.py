"""Files that the clients read for each connection: secrets, which can be replaced at any time, and certificates."""

from contextlib import suppress
from pathlib import Path

from callmood.worker.errors import ConfigurationError


class SecretFile:
    """A password or a token, on a line of its own.

    Args:
        variable: the setting that names the file; errors name it.
        path: of the file.

    Raises:
        ConfigurationError: it cannot be read, or is empty.
    """

    def __init__(self, variable: str, path: Path) -> None:
        self._path = path
        try:
            self._newest = path.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"{variable}: cannot read {path}: {error}") from None
        if not self._newest:
            raise ConfigurationError(f"{variable}: {path} is empty")

    def read(self) -> str:
        """The content of the file now; while it is being replaced, the content before."""
        with suppress(OSError, UnicodeDecodeError):
            self._newest = self._path.read_text(encoding="utf-8").strip() or self._newest
        return self._newest


def require_file(variable: str, path: Path) -> None:
    """Make sure that this user can read a file; a client that cannot reports only that a connection failed.

    Args:
        variable: the setting that names the file; errors name it.
        path: of the file.

    Raises:
        ConfigurationError: it cannot be read.
    """
    try:
        with path.open("rb"):
            pass
    except FileNotFoundError:
        raise ConfigurationError(f"{variable}: file {path} does not exist") from None
    except OSError as error:
        raise ConfigurationError(f"{variable}: cannot read {path}: {error.strerror}") from None
