"""What a process does at a source that a decoder cannot survive. Light: processes import it."""

import os

from mtl_face.faces import extract

WORK = extract._work


def work(index, source, output):
    """As `extract` works, but ends the process at the source named "deadly"."""
    if source.name == "deadly":
        source.partial(output).mkdir(exist_ok=True)
        extract._shared["reports"].put((index, 0, 0))
        os._exit(11)
    return WORK(index, source, output)
