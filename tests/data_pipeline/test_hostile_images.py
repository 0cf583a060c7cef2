"""The images of Pillow's own tests, many of them broken on purpose.

They are no part of this project: unpack the source distribution of Pillow and name its folder
`Tests/images` in the environment variable PILLOW_TESTS. Without it, these tests are skipped;
tests/data_pipeline/image_cases.py makes files of the same kinds.
"""

import os
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from data_pipeline import decoding, images
from mtl_face.errors import ImageError

SIZE = 112
FOLDER = os.environ.get("PILLOW_TESTS")

pytestmark = pytest.mark.skipif(not FOLDER, reason="PILLOW_TESTS names no folder")

REFUSED_BY_PILLOW = {
    "chunk_no_fctl.png",
    "png_decompression_dos.png",
    "unknown_compression_method.png",
}
"""Sound pictures with faults in what is not the picture: the training input reads them."""


def corpus():
    return sorted(path for path in Path(FOLDER or ".").rglob("*") if path.is_file())


def read_by_pillow(path):
    try:
        return images.read_image(path, SIZE)
    except ImageError as error:
        return error


def read_by_tensorflow(path):
    try:
        return decoding.decode(tf.io.read_file(str(path)), SIZE).numpy()
    except (tf.errors.OpError, UnicodeDecodeError) as error:
        return decoding.find_culprit([str(path)], error)


@pytest.mark.filterwarnings("ignore")  # Pillow's, on what it finds in broken files
def test_an_error_or_a_correct_picture():
    """Two decoders that share no code: where both read a file, they see the same picture."""
    paths = corpus()
    assert len(paths) > 500
    counts = {"both": 0, "neither": 0, "one": 0}
    for path in paths:
        begin = time.process_time()  # not the clock: other programs may keep the machine busy
        one, other = read_by_pillow(path), read_by_tensorflow(path)
        assert time.process_time() - begin < 30, path
        for result in (one, other):
            if isinstance(result, ImageError):
                assert result.path == str(path)
                assert result.remedy
        if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
            difference = np.abs(one.astype(int) - other.astype(int)).mean()
            assert difference <= 2, path
            counts["both"] += 1
        elif isinstance(one, ImageError) and isinstance(other, ImageError):
            counts["neither"] += 1
        else:
            assert isinstance(one, ImageError), path
            assert path.name in REFUSED_BY_PILLOW, path
            counts["one"] += 1
    print(counts)
    assert counts["both"] > 300
