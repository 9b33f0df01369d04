"""The errors that a user of edgeq can cause, and the exit code each one stands for."""


class EdgeqError(Exception):
    """Work that was asked for rightly but could not be done; the command line exits with 1.

    The message is one sentence that names the file or layer, what was expected, what was found and
    what to do.
    """

    exit_code = 1

    def __init__(self, message: str = "") -> None:
        super().__init__(printable(message))


class UsageError(EdgeqError):
    """A request that cannot be meant as it stands (a wrong name, value or path); exit code 2."""

    exit_code = 2


class FormatError(EdgeqError):
    """A file that is damaged, truncated or not what it claims to be."""


class UnsupportedError(EdgeqError):
    """A model, operator or target that edgeq has no implementation for."""


def printable(text: str) -> str:
    r"""Returns a text with everything escaped that a terminal would obey instead of showing it.

    Names come from files that others made. Control characters, line ends, marks of direction and lone surrogates
    become what Python would write for them, such as ``\x1b``.
    """
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


def nearest_name_hint(name: str, known: list[str]) -> str:
    """Returns ``"; did you mean 'x'?"`` for the known name nearest to ``name``, or an empty string."""
    import difflib

    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""
