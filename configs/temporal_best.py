"""A network over time on the task tokens of a `frame_best`: recurrent units, as winners have them.

Run:     python run.py train --config=configs/temporal_best.py --config.data.root=FOLDER
             --config.temporal.frame_model=FRAMES --workdir=DIR
         with FRAMES a run of configs/frame_best.py or configs/abaw11.py on the same FOLDER.
         --config.temporal.kind=convolution gives a peer that errs differently, for an ensemble.
         docs/recipes.md has the whole way to a submission.
Cost:    about 3,500 steps of 1.0 s of processor time, measured: an hour of it, without a GPU.
Expect:  P of 1.5 to 1.7 on the validation set with smoothing, thresholds and an ensemble, from what
         others reach so; not measured. On rendered faces, docs/temporal.md.
"""

from ml_collections import config_dict

from mtl_face import config

from . import frame_best

LOSS = ("ccc", "rare_expressions", "rare_units", "smoothed_labels", "learned_weights")
"""Options of `frame_best` that concern answers and not pictures."""


def get_config() -> config_dict.ConfigDict:
    """Two layers of 256 units in both directions, and the loss of the network of frames.

    Window, layers, width, dropout, batch, epochs, rate and decay are those of the recurrent head
    with which the best public system of ABAW 11 reads cached features (Strength-Parity, arXiv
    2607.16290, and its code).
    """
    settings = config.default()
    settings.name = "temporal_best"
    settings.model.embed_dim = frame_best.get_config().model.embed_dim  # of the tokens it reads

    temporal = settings.temporal
    temporal.kind = "gru"
    temporal.window = 64  # s-Aff-Wild2 labels every eighth frame: about 18 seconds
    temporal.layers = 2
    temporal.width = 256
    temporal.dropout = 0.2

    for name in LOSS:  # what is scored is the same: CCC and F1 over rare classes
        settings.update_from_flattened_dict(frame_best.OPTIONS[name])

    optimizer = settings.optimizer
    optimizer.batch_size = 32
    optimizer.epochs = 25  # the best of them is kept, by P on the validation set
    optimizer.learning_rate = 1e-3
    optimizer.schedule = "cosine"  # its last layer begins at 0: let it settle at the end
    optimizer.warmup_epochs = 1.0
    optimizer.weight_decay = 1e-4
    optimizer.gradient_clip = 1.0  # of long windows; others clip nothing here
    return settings
