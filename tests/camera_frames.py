"""Camera frames of rendered heads, with the places of their landmarks known exactly."""

import numpy as np

from benchmarks import heads

_DRAWN = {}


def head(seed, **options):
    """What `benchmarks.heads.head` draws; the same head is drawn once."""
    key = (seed, repr(sorted(options.items())))
    if key not in _DRAWN:
        _DRAWN[key] = heads.head(seed, **options)
    picture, landmarks = _DRAWN[key]
    return picture.copy(), landmarks.copy()


def paste(canvas, picture, landmarks, left, top):
    """Puts a picture on a canvas; gives the landmarks in the canvas' pixels."""
    height, width = picture.shape[:2]
    canvas[top : top + height, left : left + width] = picture
    return landmarks + np.array([left, top])
