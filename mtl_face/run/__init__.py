"""The application as functions on values: the only room that knows data and networks both."""

from collections.abc import Callable

Say = Callable[[str], None]
"""Takes a line for the user."""

Progress = Callable[[int, int], None]
"""Called with (done, total) now and then."""
