"""Errors of the local stack."""


class StackError(Exception):
    """The local stack cannot start or serve; the message says what to do."""


class NotInstalled(StackError):  # noqa: N818 - a state of the machine
    """A program that a server needs is not installed; the message names it."""


class PortTaken(StackError):  # noqa: N818 - a state of the machine
    """Another process took the chosen port first: choose again."""
