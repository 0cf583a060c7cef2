"""TensorFlow's judgement of a file and Pillow's: what passes the check is read in training."""

import io

import image_cases
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from data_pipeline import decoding, images
from mtl_face.errors import ImageError

SIZE = 64


def by_pillow(content):
    try:
        return images.resized(images.decode(content, "a").image, SIZE)
    except ImageError as error:
        return error


def by_tensorflow(content):
    try:
        return decoding.decode(tf.constant(content), SIZE).numpy()
    except (tf.errors.OpError, UnicodeDecodeError) as error:
        return error


def compare(content):
    """Whether Pillow reads it; if so, TensorFlow reads the same."""
    one = by_pillow(content)
    if isinstance(one, ImageError):
        return False
    other = by_tensorflow(content)
    assert isinstance(other, np.ndarray), other
    assert np.abs(one.astype(int) - other).mean() <= 2
    return True


def grey(bits):
    """Grey levels of so many bits, packed into bytes."""
    level_HW = np.asarray(image_cases.picture().convert("L")) >> (8 - bits)
    bits_HWB = np.unpackbits(level_HW[..., None], axis=2)[:, :, 8 - bits :]
    rows = np.packbits(bits_HWB.reshape(64, -1), axis=1)
    return image_cases.png(64, 64, bits, 0, [row.tobytes() for row in rows])


def sound():
    picture = image_cases.picture()
    cases = {name: content for name, (content, _, _) in image_cases.readable().items()}
    for name, options in {
        "several pictures": {"save_all": True, "append_images": [picture.rotate(90)]},
        "one bit": {"bits": 1},
    }.items():
        image = picture.quantize(2) if "bits" in options else picture
        cases[name] = image_cases.encode(image, "PNG", **options)
    cases["camera's"] = image_cases.encode(picture, "MPO", save_all=True, append_images=[picture])
    cases["restarts"] = image_cases.encode(picture, "JPEG", restart_marker_blocks=2)
    cases["4:1:1"] = image_cases.encode(picture, "JPEG", subsampling="4:1:1")
    cases["not YCbCr"] = image_cases.encode(picture, "JPEG", keep_rgb=True)
    cases |= {f"{bits} bits": grey(bits) for bits in (1, 2, 4)}
    cases |= {f"{kind} and more": cases[kind] + 100 * b"x" for kind in ("jpeg", "png")}
    return cases


CASES = sound()


@pytest.mark.parametrize("name", CASES)
def test_both_read_it(name):
    assert compare(CASES[name])


@pytest.mark.parametrize("name", image_cases.broken())
def test_both_refuse_it(name):
    content, _ = image_cases.broken()[name]
    assert isinstance(by_pillow(content), ImageError)
    assert not isinstance(by_tensorflow(content), np.ndarray)


@pytest.mark.filterwarnings("ignore")  # Pillow's, on what it finds in broken files
def test_no_damaged_file_passes_the_check_and_fails_in_training(capfd):
    random = np.random.default_rng(0)
    contents = list(CASES.values())
    read = 0
    for _ in range(600):
        content = bytearray(contents[random.integers(len(contents))])
        for _ in range(random.integers(1, 3)):
            end = min(len(content), (60, len(content))[random.integers(2)])
            content[random.integers(end)] = random.integers(256)
        if random.random() < 0.1:
            content = content[: random.integers(len(content))]
        read += compare(bytes(content))
    capfd.readouterr()  # the decoders' own remarks
    assert read > 100


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("png", lambda content: content[:-1] + b"x", "check sum of its part IEND"),
        ("png", lambda content: content[:-12], "lacks its end"),
        ("jpeg", lambda content: content[:-2] + bytes(100), "lacks its end"),
        ("bmp", lambda content: content + b"x", "12,343 bytes, by its header 12,342"),
        ("cmyk", lambda content: content.replace(b"Adobe", b"adobe"), "four inks"),
    ],
)
def test_flaws_that_pillow_overlooks(name, change, words):
    content = change(CASES[name])
    Image.open(io.BytesIO(content)).load()
    with pytest.raises(ImageError, match=words) as caught:
        images.decode(content, "a")
    assert "again" in caught.value.remedy


def test_fill_bytes_before_markers_are_no_damage():
    """The standard allows any number of them (ITU-T T.81, B.1.1.2)."""
    file = io.BytesIO()
    Image.fromarray(np.full((SIZE, SIZE, 3), 90, np.uint8)).save(file, "JPEG")
    content = file.getvalue()
    filled = content[:2] + b"\xff\xff\xff" + content[2:]
    assert compare(filled)
    np.testing.assert_array_equal(by_pillow(filled), by_pillow(content))
