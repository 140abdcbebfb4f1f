"""The exceptions that a command turns into a single line and exit code 2."""


class UserError(Exception):
    """An error that the user can mend: the message says what was found, what was expected and what to do."""


class AgreedError(UserError):
    """An error that every process of a group raises."""
