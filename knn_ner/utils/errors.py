"""Exceptions that a command reports as one line, with exit code 2."""


class UserError(Exception):
    """An error that the user can fix: the message says what was found, what was expected and what to do."""


class AgreedError(UserError):
    """An error that every process of a `ProcessGroup` raises."""
