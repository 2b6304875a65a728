"""The one exception a user's mistake raises."""


class InputError(ValueError):
    """Something a user gave is wrong: the message names the file, the field, what was found and what to do."""
