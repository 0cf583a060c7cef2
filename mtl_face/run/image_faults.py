"""Refuses a table whose images cannot all be decoded, before anything is made of them."""

import os

from data_pipeline import frames
from mtl_face.cli.progress import Progress
from mtl_face.errors import ImageError
from mtl_face.tables import FrameTable

_SHOWN = 10


def refuse(table: FrameTable, *, label: str, folder: str | os.PathLike[str] | None) -> None:
    """Decodes every image once, as training would, with progress on standard output.

    Args:
        table: the rows.
        label: of what, for messages.
        folder: where the images lie, for messages.

    Raises:
        ImageError: some cannot be used; several are listed together.
    """
    faults = frames.check_images(
        table, workers=os.cpu_count() or 1, progress=Progress(f"{label} images decoded")
    )
    if faults:
        listing = "\n".join(f"  {fault}" for fault in faults[:_SHOWN])
        more = f"\n  ... and {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else ""
        raise ImageError(
            f"{len(faults)} image files of the {label} set cannot be used:\n{listing}{more}",
            path=folder,
            remedy="replace those files, or delete them and set data.missing_images=skip",
        )
