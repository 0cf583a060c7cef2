"""The embedded default: a small network on rendered faces, on a laptop's processor.

Run:     python run.py train --config=configs/rendered_faces.py --workdir=DIR
"""

from ml_collections import config_dict

from mtl_face import config


def get_config() -> config_dict.ConfigDict:
    """A tiny preset of the same network, and the data set that this machine renders."""
    settings = config.default()
    settings.name = "rendered_faces"
    settings.data.kind = "rendered_faces"
    settings.data.source = "memory"

    model = settings.model
    model.input_size = 112
    model.input_mean = (127.5, 127.5, 127.5)
    model.input_std = (64.0, 64.0, 64.0)
    model.backbone.stage_sizes = (1, 1, 1, 1)  # 4 x 4 patches, of which each sees most of the face
    model.backbone.width = 24
    model.backbone.expansion = 1
    model.backbone.variant = "torchvision"
    model.embed_dim = 96
    model.num_heads = 8
    model.encoder_layers = 1
    model.decoder_modules = 1
    model.decoder_mlp = "last"
    model.head_layers = 2
    model.head_width = 96
    model.dropout = 0.0
    model.norm = "pre"
    model.token_init_std = 1.0  # smaller ones drown in what pre-norm branches add to all tokens

    temperatures = settings.uncertainty.temperatures
    temperatures.va, temperatures.au, temperatures.expr = 0.17, 0.35, 2.0

    augmentation = settings.augmentation
    augmentation.rotation_degrees = 5.0
    augmentation.translation = 0.04
    augmentation.zoom = (0.95, 1.05)

    optimizer = settings.optimizer
    optimizer.kind = "muon"  # AdamW needs 12 epochs for what these few give
    optimizer.batch_size = 32
    optimizer.epochs = 4
    optimizer.learning_rate = 4e-3
    optimizer.backbone_learning_rate = 8e-3
    optimizer.schedule = "cosine"
    optimizer.backbone_schedule = "cosine"
    optimizer.warmup_epochs = 0.5
    optimizer.weight_decay = 0.3

    settings.training.log_every_steps = 25
    settings.training.evaluate_every_epochs = 1.0
    settings.training.checkpoint_every_steps = 200
    return settings
