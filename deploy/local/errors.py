"""What can go wrong with the local stack."""


class StackError(Exception):
    """The local stack cannot start or serve; the message says what to do."""


class NotInstalled(StackError):  # noqa: N818 - a state of the machine
    """A server cannot be started here because something is not installed; the message says what."""


class PortTaken(StackError):  # noqa: N818 - a state of the machine
    """Another process took the port between choosing it and using it: choose again."""
