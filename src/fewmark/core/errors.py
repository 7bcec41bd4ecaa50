"""The one exception for bad input, and the one warning: their messages are meant for the person who gave the input."""


class InputError(ValueError):
    """Something that a person gave (a file, a label, a setting) cannot be used.

    The message is one line: the file (and row and field), what was expected, what was given, what to do.
    """


class BadImageWarning(UserWarning):
    """An image of a batch cannot be used and was left out; the message is that of the `InputError`."""
