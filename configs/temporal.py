"""A network over time on what a network of frames saw: dense videos, many frames of which are hard.

Run:     python run.py train --config=configs/rendered_faces.py --workdir=FRAMES
             --config.data.rendered_faces.density=dense --config.data.rendered_faces.num_videos=160
             --config.data.rendered_faces.frames_per_video=300 --config.optimizer.epochs=2
         python run.py train --config=configs/temporal.py --workdir=DIR
             --config.temporal.frame_model=FRAMES
"""

from ml_collections import config_dict

from . import rendered_faces


def get_config() -> config_dict.ConfigDict:
    """Two layers of recurrent units in both directions of time."""
    settings = rendered_faces.get_config()
    settings.name = "temporal"
    settings.data.source = "files"
    settings.data.rendered_faces.density = "dense"
    settings.data.rendered_faces.num_videos = 160
    settings.data.rendered_faces.frames_per_video = 300

    settings.temporal.kind = "gru"

    optimizer = settings.optimizer
    optimizer.kind = "adamw"
    optimizer.batch_size = 16
    optimizer.epochs = 20
    optimizer.learning_rate = 1e-3
    optimizer.warmup_epochs = 1.0
    optimizer.weight_decay = 5e-2
    optimizer.gradient_clip = 1.0

    settings.training.evaluate_every_epochs = 4.0
    settings.evaluation.batch_size = 32
    return settings
