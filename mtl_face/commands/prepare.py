"""`run.py prepare`: makes the embedded data set, or checks every row and image of a real one."""

import argparse
import dataclasses
import os

from data_pipeline import check
from mtl_face import config as config_lib
from mtl_face.commands import tables
from mtl_face.errors import ImageError

_SHOWN = 10


def run(config: config_lib.Config, options: argparse.Namespace) -> int:
    """Makes or checks the data.

    Args:
        config: the settings; only those of `data` matter.
        options: `num_videos`.

    Returns:
        Exit status 0.

    Raises:
        UserError: for the first kind of defect that is found; several are listed together.
    """
    data = config.data
    if options.num_videos is not None:
        data = dataclasses.replace(
            data,
            rendered_faces=dataclasses.replace(data.rendered_faces, num_videos=options.num_videos),
        )
        config = config_lib.validate(config_lib.to_dict(dataclasses.replace(config, data=data)))
        data = config.data
    root = tables.ensure_data(data, print)
    for split in tables.SPLITS:
        table = tables.load_split(data, root, split, print)

        def progress(done: int, total: int, split: str = split) -> None:
            print(f"{split}: decoded {done} of {total} images", end="\r" if done < total else "\n")

        faults = check.check_images(table, workers=os.cpu_count() or 1, progress=progress)
        if faults:
            listing = "\n".join(f"  {fault}" for fault in faults[:_SHOWN])
            more = f"\n  ... and {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else ""
            raise ImageError(
                f"{len(faults)} image files of the {split} set cannot be used:\n{listing}{more}",
                path=root / data.image_folder,
                remedy="replace those files, or delete them and set data.missing_images=skip",
            )
    print(f"all rows and images are sound: {root}")
    print("next: python run.py train with the same --config and --workdir=DIR")
    return 0
