"""The one error for what a user can mend."""


class InputError(ValueError):
    """Something given to the library does not fit; the message names it and says what to do.

    The command line prints the message alone, without a traceback, and exits with status 2.
    """
