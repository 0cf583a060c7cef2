"""Frame by frame with all that helps: a vision transformer that knows faces, tuned as winners do.

Run:     python run.py train --config=configs/frame_best.py --config.data.root=FOLDER --workdir=DIR
         with FOLDER a copy of s-Aff-Wild2. Add --config.model.backbone.init_from=WEIGHTS, a
         ViT-B/16 that was trained on faces (FaRL, MAE-Face, FSFM); `run.py weights WEIGHTS` says
         which further settings a file needs. Then `run.py calibrate`: smoothing, biases of the
         expressions and thresholds of the units bring as much again.
Cost:    11,100 steps of 64 images at 224 pixels, 118 GFLOP an image. By the compiler in bfloat16
         (model.compute_dtype), and at published peaks, which no run reaches: at least 23 ms a step
         and 9.8 GiB on one H100, 27 ms and 3.6 GiB a chip on four TPU v5e, so 4 to 5 minutes.
         docs/scaling.md has the commands. Not run on such data, nor on such a chip.
Expect:  P of 1.2 to 1.35 on the validation set, from what others reach on single images with such
         a backbone; not measured. docs/recipes.md has what each option is worth on rendered faces.
"""

from ml_collections import config_dict

from mtl_face import config

OPTIONS: dict[str, dict[str, object]] = {
    "ccc": {"loss.va.ccc": 0.5},
    "rare_expressions": {"loss.expr.class_weights": "effective", "loss.expr.gamma": 1.0},
    "rare_units": {"loss.au.positive_weights": "sqrt"},
    "smoothed_labels": {"loss.expr.label_smoothing": 0.1, "loss.au.label_smoothing": 0.05},
    "learned_weights": {"uncertainty.kind": "learned", "uncertainty.temperature_floor": 0.05},
    "average": {"training.ema_decay": 0.998},
    "layer_decay": {"optimizer.layer_decay": 0.75},
    "stochastic_depth": {"model.drop_path": 0.1},
}
"""What differs from `configs/paper.py` besides the network, by name; each can be taken alone."""


def get_config() -> config_dict.ConfigDict:
    """The paper's encoder, decoder and heads on another backbone, loss and optimizer."""
    settings = config.default()
    settings.name = "frame_best"

    model = settings.model
    model.backbone.kind = "vit"
    model.backbone.drop_path = 0.1
    model.input_mean = (123.675, 116.28, 103.53)  # of ImageNet
    model.input_std = (58.395, 57.12, 57.375)
    model.norm = "pre"
    model.token_init_std = 1.0
    model.encoder_layers = 1  # the backbone has twelve
    model.decoder_modules = 2
    model.head_layers = 2

    for options in OPTIONS.values():
        settings.update_from_flattened_dict(options)

    optimizer = settings.optimizer
    optimizer.epochs = 5
    optimizer.learning_rate = 2e-4
    optimizer.backbone_learning_rate = 1e-4
    optimizer.schedule = optimizer.backbone_schedule = "cosine"
    optimizer.warmup_epochs = 0.5
    optimizer.weight_decay = 5e-2
    return settings
