"""Odd and broken image files, made on the spot."""

import io
import struct
import zlib

import numpy as np
from PIL import Image


def picture(seed=0, size=(64, 64)):
    """A smooth coloured picture; JPEG keeps it within a few levels."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8))
    return small.resize(size, Image.Resampling.BICUBIC)


def encode(image, format_name, **options):
    buffer = io.BytesIO()
    image.save(buffer, format_name, **options)
    return buffer.getvalue()


def turned(orientation, image=None, format_name="JPEG"):
    """A picture with an EXIF orientation."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encode(picture() if image is None else image, format_name, exif=exif)


def _chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width, height, bits, colour_type, rows):
    """A PNG file written by hand: a reference that no library of ours made."""
    header = struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row for row in rows))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        [_chunk(b"IHDR", header), _chunk(b"IDAT", data), _chunk(b"IEND", b"")]
    )


def packed_bmp():
    """A BMP file of 32 bits a pixel that says by masks where each colour lies."""
    width = height = 4
    pixels = bytes(range(4 * width * height))
    masks = struct.pack("<III", 0xFF0000, 0xFF00, 0xFF)
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 32, 3, len(pixels), 2835, 2835, 0, 0)
    start = 14 + len(header) + len(masks)
    return struct.pack("<2sIHHI", b"BM", start + len(pixels), 0, 0, start) + header + masks + pixels


def readable():
    """Name -> (file content, RGB uint8 [64, 64, 3] that it shows, levels of tolerance)."""
    rgb = picture()
    array = np.asarray(rgb)
    grey = rgb.convert("L")
    grey_rgb = np.asarray(grey.convert("RGB"))
    palette = rgb.quantize(16)
    palette_rgb = np.asarray(palette.convert("RGB"))
    see_through = rgb.copy()
    see_through.putalpha(100)
    rotated = Image.Exif()
    rotated[0x0112] = 6
    deep_grey = (np.asarray(grey).astype(int) * 256 + 200).astype(">u2")
    deep_rgb = (array.astype(int) * 256 + 200).astype(">u2")
    return {
        "jpeg": (encode(rgb, "JPEG", quality=95, subsampling=0), array, 8),
        "progressive": (encode(rgb, "JPEG", quality=95, progressive=True), array, 16),
        "exif": (encode(rgb, "JPEG", quality=95, subsampling=0, exif=rotated), array, 8),
        "grey jpeg": (encode(grey, "JPEG", quality=95), grey_rgb, 6),
        "cmyk": (encode(rgb.convert("CMYK"), "JPEG", quality=95), array, 12),
        "png": (encode(rgb, "PNG"), array, 0),
        "grey png": (encode(grey, "PNG"), grey_rgb, 0),
        "grey and alpha": (encode(see_through.convert("LA"), "PNG"), grey_rgb, 0),
        "alpha": (encode(see_through, "PNG"), array, 0),
        "palette": (encode(palette, "PNG"), palette_rgb, 0),
        "palette and transparent": (encode(palette, "PNG", transparency=3), palette_rgb, 0),
        "16-bit grey": (png(64, 64, 16, 0, [row.tobytes() for row in deep_grey]), grey_rgb, 0),
        "16-bit": (png(64, 64, 16, 2, [row.tobytes() for row in deep_rgb]), array, 0),
        "bmp": (encode(rgb, "BMP"), array, 0),
        "32-bit bmp": (encode(see_through, "BMP"), array, 0),
    }


def broken():
    """Name -> (file content, words of the diagnosis)."""
    rgb = picture()
    jpeg, portable = encode(rgb, "JPEG"), encode(rgb, "PNG")
    damaged = bytearray(portable)
    damaged[len(damaged) // 2] ^= 255
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
    return {
        "empty": (b"", "empty"),
        "half a jpeg": (jpeg[: len(jpeg) // 2], "truncated"),
        "jpeg without end": (jpeg[:-40], "truncated"),
        "start of a jpeg": (jpeg[:4], "damaged"),
        "half a png": (portable[: len(portable) // 2], "truncated"),
        "start of a png": (portable[:12], "damaged"),
        "flipped bits": (bytes(damaged), "damaged"),
        "text": (b"not a picture\n", "text file"),
        "zeros": (bytes(1000), "not an image"),
        "web page": (b"\n<!DOCTYPE html><html><body>Log in</body></html>", "web page"),
        "pointer": (pointer, "Git LFS pointer"),
        "gif": (encode(rgb, "GIF"), "GIF images are not read"),
        "webp": (encode(rgb, "WEBP"), "WEBP images are not read"),
        "tiff": (encode(rgb, "TIFF"), "TIFF images are not read"),
        "palette bmp": (encode(rgb.quantize(16), "BMP"), "palette"),
        "packed bmp": (packed_bmp(), "packed"),
    }


def huge():
    """A PNG whose header promises 3.6 gigapixels."""
    return png(60_000, 60_000, 8, 2, [b"\0" * 30])
