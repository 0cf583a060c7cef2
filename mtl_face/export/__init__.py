"""Writing of exports: a network's arrays, or its program from crops to answers, with the card.

`mtl_face.weights.exported` reads arrays, and needs nothing of this package. Programs are run by
others: `stablehlo` and `onnx_graph` write what `whole_way` makes, `check` tries what was written.
"""

from mtl_face.export.arrays import FORMATS, Format, save

__all__ = ["FORMATS", "Format", "save"]
