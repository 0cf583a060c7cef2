"""What the editions of the ABAW challenges ask to be handed in: which columns, in which files.

Three forms exist. A multi-task submission is one file of sixteen values a row. A one-task
submission is, from the fifth edition on, one file of image ids and values; in the third edition,
one file a video without image ids, line i + 1 for frame i.
"""

import dataclasses

from mtl_face import tasks
from mtl_face.errors import ConfigError

_AU_COLUMNS = tuple(f"AU{number}" for number in tasks.AU_NUMBERS)
COLUMNS = {tasks.VA: tasks.VA_NAMES, tasks.EXPR: ("expression",), tasks.AU: _AU_COLUMNS}
"""Names of the values of each task in files, as messages call them."""

_HEADER_WORDS = {
    tasks.VA: ",".join(tasks.VA_NAMES),
    tasks.EXPR: ",".join(tasks.EXPRESSION_NAMES),  # eight names over one value
    tasks.AU: ",".join(_AU_COLUMNS),
}


@dataclasses.dataclass(frozen=True)
class Form:
    """The columns of a submission file.

    Attributes:
        header: the first line, exactly.
        tasks: the tasks whose values a row holds, in the order of the columns.
        image_column: whether a row starts with the image id; if not, the file's name is the
            video, and line i + 1 is frame i.
    """

    header: str
    tasks: tuple[str, ...]
    image_column: bool

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the values of a row, without the image id."""
        return tuple(name for task in self.tasks for name in COLUMNS[task])

    @property
    def num_fields(self) -> int:
        """Number of fields of a row."""
        return len(self.columns) + self.image_column


MULTI_TASK = Form(
    "image,valence,arousal,expression,aus", (tasks.VA, tasks.EXPR, tasks.AU), image_column=True
)
"""One file for all tasks: five names over sixteen values."""

ONE_TASK = {
    task: Form(f"image_location,{words}", (task,), image_column=True)
    for task, words in _HEADER_WORDS.items()
}
"""One file for one task, with image ids."""

PER_VIDEO = {
    task: Form(words, (task,), image_column=False) for task, words in _HEADER_WORDS.items()
}
"""One file a video for one task."""

FORMS = (MULTI_TASK, *ONE_TASK.values(), *PER_VIDEO.values())

EDITIONS: dict[str, Form] = {
    **{f"abaw{number}_mtl": MULTI_TASK for number in (3, 4, 7, 11)},
    **{f"abaw3_{task}": form for task, form in PER_VIDEO.items()},
    **{f"abaw{number}_{task}": form for number in (5, 6, 8, 10) for task, form in ONE_TASK.items()},
}
"""Form of the submission to each edition and track."""


def find_edition(name: str) -> Form:
    """The form of an edition's submission; ConfigError, with a list, if there is none."""
    if name not in EDITIONS:
        raise ConfigError(
            f"unknown edition {name!r}", remedy="choose one of " + ", ".join(EDITIONS)
        )
    return EDITIONS[name]
