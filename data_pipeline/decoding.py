"""Decoding of JPEG, PNG and BMP as a TensorFlow graph, and whose fault it is when that fails.

Dimension letters: c images decoded together, S image size in pixels.
"""

import re
from collections.abc import Callable, Iterable, Sequence

import tensorflow as tf

from data_pipeline import images
from mtl_face.errors import ImageError

_JPEG = b"\xff\xd8\xff"


def decode_several(contents: Sequence[tf.Tensor], image_size: int) -> tf.Tensor:
    """Encoded images, c scalar strings, to uint8 [c, S, S, 3].

    A branch costs a third of the decoding of a small crop, and a copy of the encoded bytes a
    twentieth. So two branches decide for several images: are they all what they usually are, JPEG,
    and of the wanted size? And no operation packs or selects their bytes.
    """

    def decode_plain() -> tf.Tensor:
        return tf.stack([_decode_jpeg(content) for content in contents])

    def decode_any() -> tf.Tensor:
        crop = tf.TensorSpec((image_size, image_size, 3), tf.uint8)
        return tf.map_fn(
            lambda content: decode(content, image_size),
            tf.stack(contents),
            fn_output_signature=crop,
        )

    def decode_jpegs() -> tf.Tensor:
        size_c3 = tf.stack([tf.io.extract_jpeg_shape(content) for content in contents])
        return tf.cond(tf.reduce_all(size_c3[:, :2] == image_size), decode_plain, decode_any)

    start_c = tf.stack([tf.strings.substr(content, 0, len(_JPEG)) for content in contents])
    image_cSSC = tf.cond(tf.reduce_all(start_c == _JPEG), decode_jpegs, decode_any)
    return tf.ensure_shape(image_cSSC, (len(contents), image_size, image_size, 3))


def decode(content: tf.Tensor, image_size: int) -> tf.Tensor:
    """Encoded JPEG, PNG or BMP to uint8 [S, S, 3]; anything else fails."""
    # Zeros behind it: reading beyond the end would fail with the file's bytes in the message,
    # which Python cannot decode.
    header = tf.strings.join([tf.strings.substr(content, 0, 32), bytes(32)])
    image = tf.cond(
        tf.strings.substr(header, 0, 3) == _JPEG,
        lambda: _decode_compressed(content, tf.io.extract_jpeg_shape(content)[:2]),
        lambda: tf.cond(
            tf.strings.substr(header, 0, 4) == b"\x89PNG",
            lambda: _decode_compressed(content, _png_size(header)),
            lambda: _decode_bmp(content, header),
        ),
    )
    image = tf.cond(
        tf.reduce_all(tf.shape(image)[:2] == image_size),
        lambda: image,
        lambda: tf.cast(
            # A triangle filter stays within the input's range: rounding needs no clipping.
            tf.round(tf.image.resize(image, (image_size, image_size), "bilinear", antialias=True)),
            tf.uint8,
        ),
    )
    return tf.ensure_shape(image, (image_size, image_size, 3))


def _decode_jpeg(content: tf.Tensor) -> tf.Tensor:
    """JPEG or PNG to RGB."""
    return tf.io.decode_jpeg(content, channels=3, dct_method="INTEGER_ACCURATE")


def _decode_compressed(content: tf.Tensor, size_px: tf.Tensor) -> tf.Tensor:
    """JPEG or PNG whose header promises `size_px`; checked before memory is taken for it."""
    allowed = tf.reduce_prod(tf.cast(size_px, tf.int64)) <= images.MAX_PIXELS
    return _decode_jpeg(tf.where(allowed, content, b""))


def _png_size(header: tf.Tensor) -> tf.Tensor:
    return tf.io.decode_raw(tf.strings.substr(header, 16, 8), tf.int32, little_endian=False)


def _decode_bmp(content: tf.Tensor, header: tf.Tensor) -> tf.Tensor:
    """BMP of 24 or 32 bits a pixel, not packed.

    Of one with a palette, TensorFlow would return the indices, and it takes any order of the
    colours for the usual one.
    """
    bits, packing = tf.strings.substr(header, 28, 1), tf.strings.substr(header, 30, 4)
    allowed = (
        (tf.strings.substr(header, 0, 2) == b"BM")
        & ((bits == b"\x18") | (bits == b"\x20"))
        & (packing == bytes(4))
    )
    return tf.io.decode_bmp(tf.where(allowed, content, b""), channels=3)


def find_culprit(paths: list[str], error: Exception) -> ImageError:
    """The image of a failed batch that cannot be read."""
    for path in paths:
        fault = images.diagnose(path)
        if fault is not None:
            return fault
    for path in paths:  # sound for Pillow: ask TensorFlow itself
        try:
            decode(tf.io.read_file(path), 8)
        except tf.errors.OpError as own_error:
            return ImageError(
                f"the image cannot be decoded ({_plain(own_error)})",
                path=path,
                remedy="save it again as JPEG or PNG with an image program",
            )
    return ImageError(
        f"an image could not be read, but can be now ({_plain(error)})",
        path=paths[0] if paths else None,
        remedy="check the disk or the network share that holds the images, then start again",
    )


def find_culprit_record(
    rows: Iterable[int], read: Callable[[int], bytes], name: Callable[[int], str], error: Exception
) -> ImageError:
    """The record of a failed batch whose image cannot be decoded.

    Args:
        rows: of the batch.
        read: row -> the encoded image.
        name: row -> where it came from.
        error: what the pipeline said.
    """
    for row in rows:
        try:
            decode(tf.constant(read(row)), 8)
        except tf.errors.OpError as own_error:
            return ImageError(
                f"the image of row {row} cannot be decoded ({_plain(own_error)})",
                path=name(row),
                remedy="mend the image file and write the shards again",
            )
    return ImageError(
        f"a record could not be read ({_plain(error)})",
        remedy="check the disk that holds the shards, or write them again",
    )


def _plain(error: Exception) -> str:
    """TensorFlow's reason without the names of its graph nodes around it."""
    noise = r"\{\{.*?\}\} ?| ?\[(Op:|\[).*|Error in user-defined function .*? Iterator::\S+: "
    return re.sub(noise, "", str(error), flags=re.DOTALL).strip()
