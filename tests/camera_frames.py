"""Camera frames of rendered heads, with the places of their landmarks known exactly."""

import numpy as np

from benchmarks.heads import head

__all__ = ["head", "paste"]


def paste(canvas, picture, landmarks, left, top):
    """Puts a picture on a canvas; gives the landmarks in the canvas' pixels."""
    height, width = picture.shape[:2]
    canvas[top : top + height, left : left + width] = picture
    return landmarks + np.array([left, top])
