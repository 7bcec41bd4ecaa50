"""The exception for bad input and the warning for bad images; their messages address the user."""


class InputError(ValueError):
    """A file, label or setting that cannot be used.

    The message is one line: file (row, field), what was expected, what was given, what to do.
    """


class OutputError(InputError):
    """The results of a whole run cannot be written, e.g. because the disk is full: the run ends, not just one image's part of it."""


class BadImageWarning(UserWarning):
    """An image of a batch that was skipped; the message is that of its `InputError`."""
