"""Which frames of a video there are images of."""

import os
import re

from mtl_face.errors import ImageError

_FRAME_FILE = re.compile(r"([0-9]{1,18})\.(?:jpg|jpeg|png|bmp)", re.IGNORECASE | re.ASCII)


def list_frames(image_root: str | os.PathLike[str], video: str) -> dict[int, str] | None:
    """File name of the image of each frame of a video.

    Args:
        image_root: folder that holds one folder a video.
        video: name of the video.

    Returns:
        File name by frame number; files that are not named by a number are left aside. None if
        the video has no folder.

    Raises:
        ImageError: the image root does not exist, a folder may not be listed, or a frame has two
            images.
    """
    folder = os.path.join(image_root, video)
    try:
        with os.scandir(folder) as entries:
            found = sorted(entry.name for entry in entries if entry.is_file())
    except (FileNotFoundError, NotADirectoryError) as error:
        if os.path.isdir(image_root):
            return None
        raise ImageError(
            "the image folder does not exist",
            path=image_root,
            remedy="set the image root to the folder that holds one folder a video",
        ) from error
    except OSError as error:
        raise ImageError(
            f"the folder cannot be listed ({error.strerror})",
            path=folder,
            remedy="make it readable (chmod u+rx)",
        ) from error
    names: dict[int, str] = {}
    for name in found:
        match = _FRAME_FILE.fullmatch(name)
        if match is None:
            continue
        frame = int(match[1])
        if frame in names:
            raise ImageError(
                f"{names[frame]} and {name} are both images of frame {frame}",
                path=folder,
                remedy="keep one of the two",
            )
        names[frame] = name
    return names
