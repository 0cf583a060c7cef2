"""Points of the face beside a frozen MobileNet that was trained to tell people apart.

Run:     python run.py train --config=configs/mobilenet.py --workdir=DIR
         with --config.model.backbone.init_from=faceres-deep.json, a file that is not shipped:
         docs/weights.md says how to get it, and what to know before.
Cost:    most of it the frozen MobileNet: about 15 times that of configs/geometry.py an epoch.
Expect:  not measured: neither its score nor that it beats configs/geometry.py was shown. Pixels
         added to points for linear heads on frozen features alone (docs/weights.md).
"""

from ml_collections import config_dict

from . import geometry


def get_config() -> config_dict.ConfigDict:
    """The network of `geometry`, which sees the patches of a MobileNet too."""
    settings = geometry.get_config()
    settings.name = "mobilenet"

    model = settings.model
    model.inputs = ("image", "points")
    model.input_size = 224
    model.input_mean = (123.68, 116.78, 103.94)
    model.input_std = (1.0, 1.0, 1.0)
    model.backbone.kind = "mobilenet"
    model.backbone.width = 32
    model.backbone.end = "pw11"  # better for affect than the last layer
    model.backbone.frozen_stages = 11

    settings.optimizer.epochs = 10
    settings.training.evaluate_every_epochs = 2.0
    return settings
