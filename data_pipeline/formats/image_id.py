"""Image ids of the ABAW challenges: `<video>/<frame>.jpg`."""

import re

from data_pipeline.formats.text_file import WHITESPACE

ID_REMEDY = "write image ids as <video>/<frame>.jpg, for instance 341/00008.jpg"

_FRAME_FILE = re.compile(r"([0-9]{1,18})\.(?:jpg|jpeg|png|bmp)", re.IGNORECASE | re.ASCII)
_EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def split_image_id(text: str) -> tuple[str, str, int]:
    """Takes an image id apart.

    Args:
        text: `<video>/<frame>.<extension>`, blanks around it and backslashes allowed. The video
            may lie in further folders, which become part of its name.

    Returns:
        The id with forward slashes, the video's name, the frame number.

    Raises:
        ValueError: with the fault as its message.
    """
    image = check_path(text)
    parts = image.split("/")
    if len(parts) < 2:
        raise ValueError(f"image id {image!r} names no video")
    match = _FRAME_FILE.fullmatch(parts[-1])
    if match is None:
        raise ValueError(
            f"image id {image!r} has no frame number: its file name must be digits and end in "
            "jpg, jpeg, png or bmp"
        )
    return image, image[: -len(parts[-1]) - 1], int(match[1])


def check_image_path(text: str) -> str:
    """Checks the path of an image whose name need not be a frame number.

    Args:
        text: path of a JPEG, PNG or BMP file below the image folder, blanks around it and
            backslashes allowed.

    Returns:
        The path with forward slashes.

    Raises:
        ValueError: with the fault as its message.
    """
    image = check_path(text)
    if not image.lower().endswith(_EXTENSIONS) or image.rsplit("/", 1)[-1].startswith("."):
        raise ValueError(f"image {image!r} does not end in jpg, jpeg, png or bmp")
    return image


def check_path(text: str) -> str:
    """Checks that a path from a file stays below the folder that it is joined to.

    Args:
        text: the path, blanks around it and backslashes allowed.

    Returns:
        The path with forward slashes, without empty parts and `.`.

    Raises:
        ValueError: with the fault as its message.
    """
    image = text.strip(WHITESPACE)
    if _CONTROL.search(image):
        raise ValueError(f"image id {image!r} holds a control character")
    if "\\" in image:
        image = image.replace("\\", "/")
    if image.startswith("/") or image[1:3] == ":/":
        raise ValueError(f"image id {image!r} is an absolute path")
    parts = image.split("/")
    if ".." in parts:
        raise ValueError(f"image id {image!r} leaves the image folder")
    if "" in parts or "." in parts:
        parts = [part for part in parts if part not in ("", ".")]
        image = "/".join(parts)
    return image
