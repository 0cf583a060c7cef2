"""Scores a file of predictions against an annotation file, without JAX or TensorFlow."""

import argparse
import json

from data_pipeline.formats import s_aff_wild2
from mtl_face.errors import ConfigError
from mtl_face.evaluation import metrics
from mtl_face.evaluation import predictions as prediction_files
from mtl_face.evaluation.files import replacing


def run(config: object, options: argparse.Namespace) -> int:
    """Scores `options.predictions` against `options.truth`.

    Args:
        config: not used.
        options: `predictions`, `truth`, `lenient`, `output`.

    Returns:
        Exit status 0.
    """
    for name in ("predictions", "truth"):
        if getattr(options, name) is None:
            raise ConfigError(
                f"scoring a file needs --{name}",
                remedy="give --predictions=FILE --truth=ANNOTATIONS",
            )
    predictions = prediction_files.read(options.predictions)
    names = sorted(set(predictions.dataset.tolist())) or ["s-aff-wild2"]
    truth = s_aff_wild2.read_annotations(options.truth, image_root=".", dataset=names[0])
    result = metrics.score(truth, predictions, lenient=options.lenient)
    if options.output is not None:
        with replacing(options.output) as temporary:
            temporary.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps({task: result[task]["score"] for task in ("va", "au", "expr")}), result["p"])
    return 0
