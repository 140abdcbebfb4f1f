"""The one exception that entry points turn into a single line and exit code 2."""


class UserError(Exception):
    """Something that the user can put right: the message says what was found, what was expected, what to do."""
