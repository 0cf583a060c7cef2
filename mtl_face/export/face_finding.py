"""The two networks that find faces, as ONNX models of one picture or many.

Pictures, cuts and places are made outside: `faces.search` and `faces.mesh` say how.

Dimension letters: B pictures, S side of a tile (256) or of a cut (192), A anchors, K key points
(6), V mesh points (468).
"""

import functools
import json
from collections.abc import Mapping
from typing import Any

import jax

from mtl_face.export import crop_points, onnx_graph
from mtl_face.export.whole_way import BATCH, Array
from mtl_face.face_table import MESH_POINTS
from mtl_face.faces import models, points
from mtl_face.faces.search import TILE

_ANCHORS = len(models.anchors(TILE))


def detector() -> bytes:
    """BlazeFace: from a tile to scores, boxes and key points on its anchors."""
    run = functools.partial(models.blaze_face, models.variables("blaze_face"), convolution="xla")

    def function(arrays: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
        score_BA, box_BA4, point_BAK2 = run(arrays["tile"])
        return {"score": score_BA, "box": box_BA4, "points": point_BAK2}

    return _written(
        function,
        {"tile": Array("uint8", (BATCH, TILE, TILE, 3), "pictures or parts of them; RGB")},
        {
            "score": Array("float32", (BATCH, _ANCHORS), "of a face, in 0..1"),
            "box": Array(
                "float32", (BATCH, _ANCHORS, 4), "left, top, right, bottom, as shares of the side"
            ),
            "points": Array(
                "float32",
                (BATCH, _ANCHORS, 6, 2),
                "eyes, tip of the nose, middle of the mouth, ears, as shares of the side",
            ),
        },
    )


def mesh() -> bytes:
    """Face Mesh: from a cut to its points, and to what does not depend on where they were cut."""
    run = functools.partial(models.face_mesh, models.variables("face_mesh"), convolution="xla")

    def function(arrays: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
        score_B, mesh_BV3 = run(arrays["cut"])
        point_BV3, turn_B33, _ = crop_points.aligned(mesh_BV3)
        return {"score": score_B, "mesh": mesh_BV3, "points": point_BV3, "turn": turn_B33}

    places = (BATCH, MESH_POINTS, 3)
    return _written(
        function,
        {
            "cut": Array(
                "float32",
                (BATCH, models.MESH_SIZE, models.MESH_SIZE, 3),
                "faces with about a quarter of their size around them, eyes level; RGB, 0..255",
            )
        },
        {
            "score": Array("float32", (BATCH,), "probability that there is a face"),
            "mesh": Array("float32", places, "x, y and depth in pixels of the cut"),
            "points": Array("float32", places, "the mesh as networks take it"),
            "turn": Array("float32", (BATCH, 3, 3), "rotation from the mean face to the mesh"),
        },
    )


def _written(function: Any, inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> bytes:
    """The model, with inputs, outputs and the weights' origin in its metadata."""
    return onnx_graph.to_onnx(
        function,
        {name: (one.dtype, one.shape_of_one) for name, one in inputs.items()},
        list(outputs),
        metadata={
            "inputs": json.dumps({name: each._asdict() for name, each in inputs.items()}),
            "outputs": json.dumps({name: each._asdict() for name, each in outputs.items()}),
            "points": json.dumps(points.specification()),
        },
    ).SerializeToString()
