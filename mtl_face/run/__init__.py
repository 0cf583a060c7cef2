"""The application as functions on values: the only room that knows data and networks both."""

from collections.abc import Callable

from mtl_face.errors import escaped

Say = Callable[[str], None]
"""Takes a line for the user."""


def show(line: str) -> None:
    """Prints a line, `escaped`."""
    print(escaped(line))


Progress = Callable[[int, int], None]
"""Called with (done, total) now and then."""
