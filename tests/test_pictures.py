"""One decoder of photographs: every mode of Pillow, every format, every orientation."""

import contextlib
import io
import os
import struct
import sys
import warnings

import heif_file
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image, ImageOps, PngImagePlugin

from mtl_face import pictures
from mtl_face.errors import ImageError

RAMP = np.linspace(0, 255, 64).round().astype(np.uint8)[None].repeat(64, axis=0)
DEEP = RAMP.astype(np.uint16) * 257  # the same in 16 bits
SHARE = (RAMP / 255).astype(np.float32)
COLOURS = np.stack([RAMP, RAMP.T, 255 - RAMP], axis=-1)


def encode(image, name, **options):
    buffer = io.BytesIO()
    image.save(buffer, name, **options)
    return buffer.getvalue()


def decode(content, path="a"):
    return np.asarray(pictures.decode(content, path).image).astype(int)


def of_mode(mode):
    """The colours, or the ramp where there are none, in a mode of Pillow."""
    if mode == "F":
        return Image.fromarray(SHARE)
    if mode == "I":
        return Image.fromarray(DEEP.astype(np.int32))
    if mode.startswith("I;16"):
        order = ">" if mode.endswith("B") else "<"
        return Image.frombytes(mode, (64, 64), DEEP.astype(order + "u2").tobytes())
    image = Image.fromarray(COLOURS)
    if mode in ("La", "RGBa"):
        image = image.convert(mode[:-1] + "A")
        image.putalpha(128)
    if mode == "PA":
        image = image.convert("P").convert("RGBA").quantize(200)
    return image.convert(mode)


@pytest.mark.parametrize("mode", Image.MODES)
def test_every_mode(mode):
    image = of_mode(mode)
    assert image.mode == mode
    rgb = pictures._to_rgb(image)
    assert rgb.mode == "RGB"
    if mode.startswith("I") or mode == "F":
        expected, tolerance = np.stack([RAMP] * 3, axis=-1), 0
    elif mode in ("1", "P", "PA"):
        expected, tolerance = np.asarray(image.convert("RGB")), 0
    elif mode in ("L", "LA", "La"):
        expected, tolerance = np.asarray(Image.fromarray(COLOURS).convert("L").convert("RGB")), 1
    elif mode == "LAB":  # blue is beyond what its 8 bits tell apart
        expected, tolerance = COLOURS, 40
    else:
        expected, tolerance = COLOURS, 6
    assert np.abs(np.asarray(rgb).astype(int) - expected).max() <= tolerance


TWELVE_BITS = np.arange(0, 4096, 64, dtype=np.uint16)


def twelve_bit_tiff():
    """One row of 64 grey values of 12 bits, two in three bytes."""
    pairs = TWELVE_BITS.reshape(-1, 2).tolist()
    data = b"".join(struct.pack(">I", (a << 12 | b) << 8)[:3] for a, b in pairs)
    tags = [(256, 64), (257, 1), (258, 12), (259, 1), (262, 1), (273, 8), (278, 1)]
    tags += [(279, len(data))]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    directory = struct.pack("<H", len(tags)) + entries + bytes(4)
    return b"II*\0" + struct.pack("<I", 8 + len(data)) + data + directory


DEEP_FILES = {
    "16-bit PNG": encode(Image.fromarray(DEEP), "PNG"),
    "16-bit TIFF": encode(Image.fromarray(DEEP), "TIFF"),
    "16-bit TIFF, most significant first": encode(Image.fromarray(DEEP.astype(">u2")), "TIFF"),
    "16-bit TIFF, packed": encode(Image.fromarray(DEEP), "TIFF", compression="tiff_lzw"),
    "16-bit TIFF, white is zero": encode(Image.fromarray(65535 - DEEP), "TIFF", tiffinfo={262: 0}),
    "16 bits in 32": encode(Image.fromarray(DEEP.astype(np.int32)), "TIFF"),
    "8 bits in 32": encode(Image.fromarray(RAMP.astype(np.int32)), "TIFF"),
    "8 bits as floats": encode(Image.fromarray(RAMP.astype(np.float32)), "TIFF"),
    "floats from 0 to 1": encode(Image.fromarray(SHARE), "TIFF"),
    "PFM": encode(Image.fromarray(SHARE), "PPM"),
    "16-bit PGM": encode(Image.fromarray(DEEP), "PPM"),
    "16-bit JPEG 2000": encode(Image.fromarray(DEEP), "JPEG2000"),
}


@pytest.mark.parametrize("name", DEEP_FILES)
def test_deep_images_keep_their_greys(name):
    """Pillow's own conversion makes them white, or black."""
    np.testing.assert_array_equal(decode(DEEP_FILES[name])[:, :, 0], RAMP)


def test_twelve_bits():
    np.testing.assert_array_equal(decode(twelve_bit_tiff())[0, :, 0], TWELVE_BITS // 16)


def test_a_dark_16_bit_image_is_dark():
    dark = np.full((8, 8), 200, np.uint16)
    for name in ("PNG", "PPM", "TIFF"):
        assert not decode(encode(Image.fromarray(dark), name)).any(), name


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (DEEP.astype(np.int32) * 16, r"integers from 0 to 1.04856e\+06"),
        (DEEP.astype(np.int32) - 9, "integers from -9 to 65526"),
        (SHARE * 1.5, "floats from 0 to 1.5"),
        (RAMP * np.float32(0.97), "floats from 0 to 247.35"),
        (np.where(RAMP > 9, SHARE, np.float32("nan")), "floats from nan to nan"),
    ],
)
def test_white_must_be_known(values, words):
    with pytest.raises(ImageError, match=words) as caught:
        decode(encode(Image.fromarray(values), "TIFF"), "deep.tif")
    assert caught.value.path == "deep.tif"
    assert "8 or 16 bits" in caught.value.remedy


FORMATS = {
    "JPEG": ({"quality": 98, "subsampling": 0}, 10),
    "PNG": ({}, 0),
    "BMP": ({}, 0),
    "WEBP": ({"lossless": True}, 0),
    "TIFF": ({}, 0),
    "GIF": ({}, 40),
    "PPM": ({}, 0),
    "JPEG2000": ({}, 0),
    "AVIF": ({"quality": 98, "subsampling": "4:4:4"}, 12),
    "MPO": ({"quality": 98, "subsampling": 0, "save_all": True}, 10),
}


@pytest.mark.parametrize("name", FORMATS)
def test_every_format(tmp_path, name):
    options, tolerance = FORMATS[name]
    image = Image.fromarray(COLOURS)
    if name == "GIF":
        image = image.quantize(256)
    if name == "MPO":
        options = {**options, "append_images": [image]}
    path = tmp_path / "photo"
    path.write_bytes(encode(image, name, **options))
    picture = pictures.read(path)
    assert (picture.format, picture.orientation, picture.is_first) == (name, 1, False)
    assert np.abs(np.asarray(picture.image).astype(int) - COLOURS).max() <= tolerance


@pytest.mark.parametrize("name", ["GIF", "TIFF", "WEBP", "PNG"])
def test_the_first_of_several_pictures(name):
    several = [Image.fromarray(RAMP.T.copy())]
    content = encode(Image.fromarray(RAMP), name, save_all=True, append_images=several)
    picture = pictures.decode(content, "a")
    assert picture.is_first
    assert np.abs(np.asarray(picture.image)[:, :, 0].astype(int) - RAMP).max() <= 8


@pytest.fixture
def fresh_formats():
    pictures._readable.cache_clear()
    yield
    pictures._readable.cache_clear()


@pytest.mark.usefixtures("fresh_formats")
@pytest.mark.parametrize("quarters", range(4))
def test_heif(quarters):
    pytest.importorskip("pi_heif")
    assert ".heic" in pictures.endings()
    assert pictures.remedy(".txt") is None
    picture = pictures.decode(heif_file.encode(COLOURS, quarters=quarters), "a.heic")
    shown = np.asarray(picture.upright()).astype(int)
    assert picture.format == "HEIF"
    assert np.abs(shown - np.rot90(COLOURS, quarters)).mean() < 4
    with pytest.raises(ImageError, match="damaged"):
        pictures.decode(heif_file.encode(COLOURS)[:300], "a.heic")


@pytest.mark.usefixtures("fresh_formats")
def test_without_the_libraries(monkeypatch):
    monkeypatch.setitem(sys.modules, "pi_heif", None)
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    monkeypatch.setattr(pictures.features, "check", lambda name: name != "avif")
    assert {".heic", ".hif", ".avif"}.isdisjoint(pictures.endings())
    assert {".jpg", ".jfif", ".jp2", ".gif", ".tiff"} <= pictures.endings()
    assert "mtl_face[heic]" in pictures.remedy(".HEIC")
    assert "--upgrade pillow" in pictures.remedy(".avif")
    assert pictures.remedy(".cr2") == "convert to JPEG or PNG"
    assert pictures.remedy(".csv") is None
    content = heif_file.encode(COLOURS)
    with pytest.raises(ImageError, match="not read without pi-heif") as caught:
        pictures.decode(content, "IMG_1.jpg")
    assert "mtl_face[heic]" in caught.value.remedy
    with pytest.raises(ImageError, match="HEIF images are not read") as caught:
        pictures.decode(content, "IMG_1.jpg", formats=("JPEG", "PNG"))
    assert caught.value.remedy == "convert it to JPEG or PNG"


def with_orientation(orientation, name):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    options, _ = FORMATS[name]
    return encode(Image.fromarray(COLOURS[:40]), name, exif=exif, **options)


@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientations(orientation, name):
    content = with_orientation(orientation, name)
    picture = pictures.decode(content, "a")
    with Image.open(io.BytesIO(content)) as image:
        expected = ImageOps.exif_transpose(image).convert("RGB")
    np.testing.assert_array_equal(np.asarray(picture.upright()), np.asarray(expected))
    if name != "TIFF":  # which Pillow itself turns
        assert picture.orientation == orientation
        assert picture.image.size == (64, 40)
    if name in ("JPEG", "PNG"):
        assert pictures.stored_orientation(content) == orientation


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_steps_of_a_turn_are_its_method(orientation):
    """Whoever has no Pillow, as TensorFlow, takes the steps."""
    transposed, left_right, top_bottom, *_ = pictures.TURNS[orientation]
    pixels = COLOURS[:40]
    stepped = pixels.transpose(1, 0, 2) if transposed else pixels
    stepped = stepped[:, ::-1] if left_right else stepped
    stepped = stepped[::-1] if top_bottom else stepped
    turned = pictures.turn(Image.fromarray(pixels), orientation)
    np.testing.assert_array_equal(np.asarray(turned), stepped)


def test_an_orientation_from_xmp():
    """Where there are no EXIF data, as image programs write it."""
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf tiff:Orientation="6"/></x:xmpmeta>'
    information = PngImagePlugin.PngInfo()
    information.add_itxt("XML:com.adobe.xmp", xmp.decode(), zip=True)
    for content in (
        encode(Image.fromarray(COLOURS), "JPEG", xmp=xmp),
        encode(Image.fromarray(COLOURS), "PNG", pnginfo=information),
    ):
        assert pictures.decode(content, "a").orientation == 6
        assert pictures.stored_orientation(content) == 6
    plain = encode(Image.fromarray(COLOURS), "JPEG")
    assert pictures.stored_orientation(plain) == 1


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
@pytest.mark.parametrize(
    "exif",
    [b"Exif\0\0", b"Exif\0\0II*\0", b"Exif\0\0" + bytes(40), b"Exif\0\0II*\0\xff\xff\xff\xff"],
)
def test_damaged_exif_data_are_none(exif):
    picture = pictures.decode(encode(Image.fromarray(COLOURS), "JPEG", exif=exif), "a")
    assert picture.orientation == 1
    for value in (0, 9, 65535):
        assert pictures.decode(with_orientation(value, "PNG"), "a").orientation == 1


def test_the_limit_is_ours_alone(monkeypatch):
    """Pillow warns from its own on, and refuses from twice as many."""
    content = encode(Image.fromarray(COLOURS), "PNG")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert decode(content).shape == (64, 64, 3)
    assert Image.MAX_IMAGE_PIXELS == 1000
    with pytest.raises(ImageError, match="more than 4,000 pixels"):
        pictures.decode(content, "a", most_pixels=4000)


def test_files_that_are_no_files(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name, words in [("pipe", "pipe or a device"), ("none", "does not exist"), ("", "a folder")]:
        with pytest.raises(ImageError, match=words):
            pictures.read(tmp_path / name)


def test_a_tiff_of_a_kind_that_is_not_read():
    content = encode(Image.fromarray(COLOURS), "TIFF").replace(
        b"\2\1\3\0\3\0\0\0", b"\2\1\3\0\2\0\0\0"
    )
    with pytest.raises(ImageError, match="kind of TIFF"):
        pictures.decode(content, "a")


_FILES = [*DEEP_FILES.values(), *(with_orientation(6, name) for name in ("JPEG", "WEBP", "AVIF"))]


@pytest.mark.filterwarnings("ignore")  # Pillow's, on what it finds in broken files
@settings(deadline=None, derandomize=True, max_examples=150)
@given(data=st.data())
def test_damage_gives_an_image_or_an_error(data):
    content = bytearray(data.draw(st.sampled_from(_FILES)))
    for _ in range(data.draw(st.integers(1, 3))):
        end = min(len(content), data.draw(st.sampled_from([60, len(content)]))) - 1
        content[data.draw(st.integers(0, end))] = data.draw(st.integers(0, 255))
    content = bytes(content[: data.draw(st.integers(0, len(content)))])
    with contextlib.suppress(ImageError):
        assert pictures.decode(content, "a", most_pixels=100_000).image.mode == "RGB"
