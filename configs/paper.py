"""First submission of the paper: no MixUp.

Run:     python run.py train --config=configs/paper.py --config.data.root=FOLDER --workdir=DIR
         with FOLDER a copy of s-Aff-Wild2 (training_set_annotations.txt,
         validation_set_annotations.txt, cropped_aligned/).
Cost:    22,200 steps of 64 images at 224 pixels, 63.5 million parameters; not measured yet.
Expect:  P between 1.10 and 1.15 on the validation set with VGGFace2 weights and smoothing (paper,
         Table 1: 1.12). Weights and smoothing are not part of this version, so expect less.
"""

from ml_collections import config_dict

from mtl_face import config


def get_config() -> config_dict.ConfigDict:
    """The defaults are the paper's."""
    settings = config.default()
    settings.name = "paper"
    return settings
