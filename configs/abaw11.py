"""The multi-task challenge of ABAW 11 (ECCV 2026): `frame_best` on s-Aff-Wild2 as handed out.

Run:     python run.py train --config=configs/abaw11.py --config.data.root=FOLDER --workdir=DIR
         with FOLDER as handed out on request by the organisers: training_set_annotations.txt,
         validation_set_annotations.txt, and the crops as cropped_aligned/VIDEO/FRAME.jpg. Then the
         script of docs/recipes.md: seeds, networks over time, ensemble, calibration, submission.
Hand in: --edition=abaw11_mtl of run.py submit: one file, a row for each of the test list.
Rules:   weights that saw Aff-Wild2 are forbidden, and so is the whole of Aff-Wild2 besides its
         static subset; other data and any face detector are allowed. Say where your weights come
         from with provenance.pretrained_on.
Cost:    as configs/frame_best.py.
Expect:  as configs/frame_best.py. The organisers' baseline has P 0.45 on the validation set, the
         best public system, an ensemble over time, 1.73.
Unknown: the ranking on the test set, the name of its list, and whether the server still takes
         submissions: the deadline was 16 July 2026. Of an edition 12 nothing is known. The
         static subset and the form of submissions stayed the same in editions 4, 7 and 11.
"""

from ml_collections import config_dict

from . import frame_best

EDITION = "abaw11_mtl"
"""Of `run.py submit` and `run.py validate`."""


def get_config() -> config_dict.ConfigDict:
    """`frame_best`, with the layout of the data written out."""
    settings = frame_best.get_config()
    settings.name = "abaw11"

    data = settings.data
    data.kind = "s_aff_wild2"
    data.train_annotations = "training_set_annotations.txt"
    data.validation_annotations = "validation_set_annotations.txt"
    data.image_folder = "cropped_aligned"
    return settings
