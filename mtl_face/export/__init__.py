"""Writing of exports: a network's arrays alone, with the card that says what they are.

`mtl_face.weights.exported` reads them, and needs nothing of this package.
"""

from mtl_face.export.arrays import FORMATS, Format, save

__all__ = ["FORMATS", "Format", "save"]
