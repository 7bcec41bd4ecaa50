"""The one exception for bad input: its message is meant for the person who gave the input."""


class InputError(ValueError):
    """Something that a person gave (a file, a label, a setting) cannot be used.

    The message is one line: the file (and row and field), what was expected, what was given, what to do.
    """
