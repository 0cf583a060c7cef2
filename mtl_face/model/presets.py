"""Two sizes of the network, as the attributes of `network.MtlFace`."""

from typing import Any

PAPER: dict[str, Any] = {
    "input_size": 224,
    "input_mean": (131.0912, 103.8827, 91.4953),  # of VGGFace2, R G B
    "input_std": (1.0, 1.0, 1.0),
    "stage_sizes": (3, 4, 6, 3),
    "backbone_width": 64,
    "expansion": 4,
    "variant": "caffe",
    "embed_dim": 768,
    "encoder_layers": 2,
    "decoder_modules": 2,
    "num_heads": 12,
    "mlp_ratio": 4,
    "decoder_mlp": "each",
    "head_layers": 4,
    "head_width": 768,
    "dropout": 0.1,
    "norm": "post",
    "position": "2d",
    "token_init_std": 0.02,
    "batch_norm_momentum": 0.9,
}
"""The paper's network (section 3.1): 72,943,446 parameters, 7 x 7 patches of a 224 pixel
image. With one perceptron a decoder module (`decoder_mlp` "last") they are 63,495,510."""

TINY: dict[str, Any] = {
    "input_size": 112,
    "input_mean": (127.5, 127.5, 127.5),
    "input_std": (64.0, 64.0, 64.0),
    "stage_sizes": (1, 1, 1, 1),
    "backbone_width": 24,
    "expansion": 1,
    "variant": "torchvision",
    "embed_dim": 96,
    "encoder_layers": 1,
    "decoder_modules": 1,
    "num_heads": 8,
    "mlp_ratio": 4,
    "decoder_mlp": "last",
    "head_layers": 2,
    "head_width": 96,
    "dropout": 0.0,
    "norm": "pre",
    "position": "2d",
    "token_init_std": 1.0,
    "batch_norm_momentum": 0.9,
}
"""A network to learn with on a CPU: 855,982 parameters, 4 x 4 patches of a 112 pixel image."""
