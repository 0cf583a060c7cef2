"""First submission of the paper: no MixUp, predictions smoothed over 30 frames.

Run:     python run.py train --config=configs/paper.py --config.data.root=FOLDER --workdir=DIR
         with FOLDER a copy of s-Aff-Wild2 (training_set_annotations.txt,
         validation_set_annotations.txt, cropped_aligned/). Add, as the paper did,
         --config.model.backbone.init_from=VGGFACE2_WEIGHTS; `run.py weights VGGFACE2_WEIGHTS` says
         which further settings a file needs.
Cost:    22,200 steps of 64 images at 224 pixels, 72.9 million parameters; not measured yet.
Expect:  P between 1.10 and 1.15 on the validation set (paper, Table 1: 1.12). Not measured yet.
"""

from ml_collections import config_dict

from mtl_face import config


def get_config() -> config_dict.ConfigDict:
    """The defaults are the paper's; eq. 1 and section 4 (smoothing) say how it predicts."""
    settings = config.default()
    settings.name = "paper"
    settings.evaluation.probability = "paper"
    smoothing = settings.evaluation.smoothing
    smoothing.va = smoothing.au = smoothing.expr = 30.0
    return settings
