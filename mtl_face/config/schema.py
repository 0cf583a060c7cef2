"""Every setting of an experiment: its name, type, default, allowed values, meaning and effect.

A setting says what it affects, or its section says it for all; the keys of `AFFECTS` are the words.
Which settings may change when a run goes on, in which its hosts may differ, which shape a compiled
step or matter to an export follows from that (`dotted`).
"""

import dataclasses
import types
from collections.abc import Mapping
from typing import Any

MOBILENET_LAYERS = ("conv1", *(f"{kind}w{pair}" for pair in range(1, 14) for kind in "dp"))
"""Layers of MobileNet-v1, in their order."""
INPUTS = ("image", "points")
"""What a network can take of a frame, see `mtl_face.inputs`."""
TEMPORAL_KINDS = ("none", "gru", "convolution", "attention")
"""What a network over time is made of."""
FEWEST_VIDEOS, FEWEST_FRAMES = 3, 2
"""Of rendered faces: a video for each split, and frames of a video."""
VA_NOISES = ("constant", "yaw")
"""What the noise on valence and arousal of rendered faces depends on."""
MOVEMENTS = ("alike", "individual")
"""How faces of rendered faces move."""
DENSITIES = ("sparse", "dense", "dense_half")
"""Which frames of a video of rendered faces are labelled."""
HARD_SHARE, LARGEST_HARD_SHARE = 0.4, 0.8
"""Of the time of a dense video, what is hard to read: by default, and at most."""

AFFECTS = {
    "network": "the function of the trained parameters",
    "training": "the parameters that training gives",
    "data": "the examples and their labels",
    "course": "title of a run, and when it is saved and evaluated",
    "place": "where files lie, and how a host reads or makes them",
    "speed": "how fast, for the same numbers but for rounding",
    "safety": "what happens when a step or a disk fails",
    "evaluation": "how a trained network is evaluated",
    "display": "what is shown",
    "record": "what is recorded about the weights",
}
"""What a setting may affect."""


def setting(
    default: Any,
    meaning: str,
    *,
    affects: str | None = None,
    step: bool | None = None,
    training_only: bool | None = None,
    choices: tuple[str, ...] | None = None,
    minimum: float | None = None,
    maximum: float | None = None,
    above: float | None = None,
) -> Any:
    """One field of the schema; all that is stated of it is kept as metadata.

    Args:
        default: value when an experiment says nothing.
        meaning: one line for the reader, with unit and range.
        affects: a key of `AFFECTS`; None: as the section says, like the next two.
        step: whether it shapes the compiled training step.
        training_only: whether a trained network has no use for it.
        choices: the allowed words of a string.
        minimum: smallest allowed number (each number of a tuple).
        maximum: largest allowed number (each number of a tuple).
        above: number that must be exceeded.
    """
    metadata = {
        "meaning": meaning,
        "affects": affects,
        "step": step,
        "training_only": training_only,
        "choices": choices,
        "minimum": minimum,
        "maximum": maximum,
        "above": above,
    }
    return dataclasses.field(default=default, metadata=metadata)


class Section:
    """A part of the schema; its keywords state what its settings do not state themselves."""

    def __init_subclass__(
        cls, affects: str | None = None, step: bool = False, training_only: bool = False
    ) -> None:
        common = {"affects": affects, "step": step, "training_only": training_only}
        for name, field in vars(cls).items():
            if isinstance(field, dataclasses.Field) and "meaning" in field.metadata:
                own = {key: value for key, value in field.metadata.items() if value is not None}
                field.metadata = types.MappingProxyType({**field.metadata, **common, **own})
                if field.metadata["affects"] not in AFFECTS:
                    raise TypeError(f"{cls.__name__}.{name}: what does it affect?")


def named_sections(schema: type) -> Any:
    """A field that holds sections of one schema under names that the experiment chooses."""
    return dataclasses.field(default_factory=dict, metadata={"named": schema})


@dataclasses.dataclass(frozen=True)
class RenderedFacesConfig(Section, affects="data"):
    """The embedded data set, rendered on this machine on first use (`data.kind=rendered_faces`)."""

    num_videos: int = setting(
        240, "videos over all three splits; one identity each, or two", minimum=FEWEST_VIDEOS
    )
    frames_per_video: int = setting(
        20, "mean number of labelled frames in a video", minimum=FEWEST_FRAMES
    )
    seed: int = setting(0, "the same seed gives the same bytes", minimum=0)
    va_noise: str = setting(
        "constant",
        "standard deviation of the noise on valence and arousal: the same everywhere, or larger "
        "the more the head is turned (yaw)",
        choices=VA_NOISES,
    )
    movement: str = setting(
        "alike",
        "how faces move: all as the prototypes of the expressions have it, or each person in a way "
        "of their own and in more combinations, down to faint ones (individual)",
        choices=MOVEMENTS,
    )
    density: str = setting(
        "sparse",
        "labelled frames: some with gaps between them; every frame of a video (dense); every "
        "second one (dense_half). Dense videos have stretches that are hard to read, and valence "
        "and arousal that lag and drift as a rater's do",
        choices=DENSITIES,
    )
    hard_share: float = setting(
        HARD_SHARE,
        "share of the time of dense videos in which the face is covered, blurred, dim or turned "
        "away",
        minimum=0.0,
        maximum=LARGEST_HARD_SHARE,
    )
    workers: int | None = setting(
        None, "rendering processes; None: one per processor", minimum=1, affects="place"
    )


@dataclasses.dataclass(frozen=True)
class TaskSamplingConfig(Section, affects="data"):
    """What a row counts for having labels of a task (`data.sampling=weighted`)."""

    va: float = setting(1.0, "of rows with valence and arousal", minimum=0.0)
    au: float = setting(1.0, "of rows with action units", minimum=0.0)
    expr: float = setting(1.0, "of rows with an expression", minimum=0.0)


@dataclasses.dataclass(frozen=True)
class PerVideoConfig(Section, affects="data"):
    """Files of the one-task challenges, one a video and task (`data.kind=per_video`)."""

    tasks: tuple[str, ...] = setting(
        ("va", "au", "expr"),
        "tasks whose files are read; each needs its folder below root",
        choices=("va", "au", "expr"),
    )


LAYOUTS = (
    *("manifest", "openface", "openface3", "py_feat", "affectnet", "affectnet_words"),
    *("affectnet_folders", "fer2013", "ferplus", "raf_db", "class_folders", "disfa", "bp4d"),
    "challenge_rows",
)
"""Layouts of labels that others made: see docs/layouts.md."""


@dataclasses.dataclass(frozen=True)
class ManifestConfig(Section, affects="data"):
    """A table of anyone's own images (`data.kind=manifest`); see docs/data_formats.md."""

    layout: str = setting(
        "auto",
        "what the file or folder is: auto: as its content says; manifest: a table of the user's "
        "own; or a layout of docs/layouts.md",
        choices=("auto", *LAYOUTS),
    )
    columns: tuple[str, ...] | None = setting(
        None, "names of the columns, in their order, of a file without a header line"
    )
    image_pattern: str | None = setting(
        None,
        "path of an image where rows name a video and a frame, as {video}/{frame:05}.jpg; {face} "
        "numbers the faces of a frame; None: the layout's own",
    )
    validation_videos: tuple[str, ...] | None = setting(
        None,
        "videos of the validation set, as F001*,F002*, where one file or folder holds both sets; "
        "the training set has the others",
    )
    video_from: str = setting(
        "auto",
        "what a video is where no column says it: each folder; images whose paths differ in the "
        "number at the end (name); each image alone (image); auto: as the paths show it, and an "
        "error where they do not",
        choices=("auto", "folder", "name", "image"),
    )
    expression_map: str = setting(
        "aff_wild2",
        "what its expressions mean: aff_wild2, affectnet, affectnet_contempt_as_other, "
        "affectnet_alphabetical, fer2013, raf_db, or the path of a JSON file; a layout brings its "
        "own in place of aff_wild2",
    )
    au_threshold: float | None = setting(
        None,
        "intensity (0 to 5) from which on an action unit is present; None: they are 0 or 1, or as "
        "the layout says",
        above=0.0,
        maximum=5.0,
    )
    va_range: tuple[float, float] = setting(
        (-1.0, 1.0), "valence and arousal at their lowest and highest in the file"
    )
    missing_values: tuple[float, ...] = setting(
        (-1.0, -5.0), "numbers that mark a missing label, where they are not valid labels"
    )


@dataclasses.dataclass(frozen=True)
class DataSetConfig(Section, affects="data"):
    """One data set: where its frames and labels come from."""

    kind: str = setting(
        "s_aff_wild2",
        "s_aff_wild2: a folder in the layout of the multi-task challenge of ABAW 4, 7 and 11; "
        "abaw3_mtl: of ABAW 3; per_video: of the one-task challenges; "
        "manifest: a CSV or Parquet table of any images, or labels as other data sets and tools "
        "have them (docs/layouts.md); "
        "rendered_faces: the embedded data set, made by train and prepare if absent",
        choices=("s_aff_wild2", "abaw3_mtl", "per_video", "manifest", "rendered_faces"),
    )
    root: str | None = setting(
        None,
        "folder that holds the files below; None: the user's cache folder (rendered_faces only)",
        affects="place",
    )
    train_annotations: str | None = setting(
        None,
        "annotation file of the training set, below root (per_video: name of the set's folders); "
        "None: the usual name of the kind, as training_set_annotations.txt, Train_Set, train.csv",
        affects="place",
    )
    validation_annotations: str | None = setting(
        None,
        "that of the validation set; None: as validation_set_annotations.txt",
        affects="place",
    )
    image_folder: str = setting(
        "cropped_aligned", "folder of the crops, below root", affects="place"
    )
    missing_images: str = setting(
        "error",
        "a row whose image file is absent: error, or skip (each is counted and reported); "
        "per_video: a video without a folder (its frames without an image are always skipped)",
        choices=("error", "skip"),
    )
    skip_bad_rows: bool = setting(
        False,
        "whether rows of labels that cannot be read are left out, counted and listed (also "
        "--skip_bad_rows); false: they are an error",
    )
    soft_labels: bool = setting(
        False,
        "whether training takes votes and probabilities as shares of a label, annotators' spread, "
        "and label_weight as what a row counts; false: the labels that they decide on, each "
        "counting 1",
    )
    per_video: PerVideoConfig = PerVideoConfig()
    manifest: ManifestConfig = ManifestConfig()
    rendered_faces: RenderedFacesConfig = RenderedFacesConfig()


@dataclasses.dataclass(frozen=True)
class MixedDataConfig(DataSetConfig, affects="data"):
    """One of several data sets that are trained on together (`data.mixture`)."""

    weight: float = setting(
        1.0, "how often it is drawn, in the unit of data.mixture_weights", above=0.0
    )
    tasks: tuple[str, ...] = setting(
        ("va", "au", "expr"),
        "tasks whose labels are taken from it; others count as missing",
        choices=("va", "au", "expr"),
    )


@dataclasses.dataclass(frozen=True)
class DataConfig(DataSetConfig, affects="data"):
    """The data set to train on and to evaluate, or a mixture of several in its place."""

    image_size: int = setting(
        112,
        "side of the stored crops, in pixels; others are resized",
        minimum=8,
        maximum=1024,
        affects="network",
        step=True,
    )
    source: str = setting(
        "files",
        "files: decode while training; memory: decode once, then train from memory "
        "(37 KB a frame at 112 pixels)",
        choices=("files", "memory"),
        affects="place",
    )
    baseline: tuple[str, ...] = setting(
        ("person",),
        "face at rest that points are compared with (model.inputs with points): none; person: the "
        "mean of a video's frames; neutral: the mean of those labelled Neutral without action "
        "units, or of all if there are none. Training draws one of several for each example, all "
        "else takes the first",
        choices=("none", "person", "neutral"),
        step=True,
    )
    features: str | None = setting(
        None,
        "folder of face points and task tokens (run.py features), made if absent; None: the folder "
        "features below the root of the data set that is evaluated",
        affects="place",
    )
    exif_orientation: str = setting(
        "ignore",
        "of images whose EXIF orientation is not upright: ignore, as stored, or apply, which turns "
        "them; `run.py prepare --audit` counts them",
        choices=("ignore", "apply"),
    )
    shards: str | None = setting(
        None,
        "folder that `run.py prepare --shards` wrote: rows and images are read from there; "
        "the data set itself is not looked for",
        affects="place",
    )
    sampling: str = setting(
        "uniform",
        "uniform: each row exactly once per epoch; expression_balanced: each expression equally "
        "often; au_balanced: rows with rare action units more often; weighted: by task_sampling",
        choices=("uniform", "expression_balanced", "au_balanced", "weighted"),
    )
    task_sampling: TaskSamplingConfig = TaskSamplingConfig()
    mixture: Mapping[str, MixedDataConfig] = named_sections(MixedDataConfig)
    mixture_weights: str = setting(
        "row",
        "what a weight of the mixture stands for: row: how often each row comes; "
        "set: the share of examples that the data set gives, whatever its size",
        choices=("row", "set"),
    )
    validation: str | None = setting(
        None,
        "name of the data set of the mixture that is evaluated and chooses the best checkpoint",
    )
    validate_each: bool = setting(
        False, "score the other data sets of the mixture too, at each evaluation in training"
    )


@dataclasses.dataclass(frozen=True)
class VitConfig(Section, affects="network", step=True):
    """A vision transformer (`model.backbone.kind=vit`); `run.py weights FILE` says what a file has.

    The defaults are those of ViT-B/16.
    """

    patch: int = setting(16, "side of a patch, in pixels; divides model.input_size", minimum=1)
    width: int = setting(768, "channels of a token", minimum=1)
    depth: int = setting(12, "blocks", minimum=1)
    num_heads: int = setting(12, "attention heads; must divide width", minimum=1)
    mlp_width: int = setting(3072, "hidden channels of a block's perceptron", minimum=1)
    gated_mlp: bool = setting(False, "whether the perceptron is a SwiGLU, with one matrix more")
    activation: str = setting(
        "gelu",
        "of the perceptron without a gate: gelu, its approximations by a logistic function "
        "(quick_gelu: OpenAI's CLIP, FaRL) or by tanh (gelu_tanh: SigLIP)",
        choices=("gelu", "quick_gelu", "gelu_tanh"),
    )
    class_token: bool = setting(True, "whether a token without a place goes along")
    registers: int = setting(0, "further tokens without a place", minimum=0)
    positions: str = setting(
        "learned",
        "of the patches: codes that are learned, or fixed as in MAE (sincos), or rotations of "
        "queries and keys (rotary: DINOv3)",
        choices=("learned", "sincos", "rotary"),
    )
    rotary_base: float = setting(
        100.0, "longest over shortest wave of the rotations, nearly", above=1.0
    )
    pre_norm: bool = setting(False, "whether tokens are normalised before the blocks too (CLIP)")
    qkv_bias: str = setting(
        "all",
        "biases of queries, keys and values: all, none for the keys (DINOv3), or none",
        choices=("all", "no_key", "none"),
    )
    layer_scale: bool = setting(False, "whether each branch is scaled by channel (DINO)")
    final_norm: bool = setting(True, "whether tokens are normalised after the blocks")
    norm_epsilon: float = setting(1e-6, "added to the variance of layer norms", above=0.0)


@dataclasses.dataclass(frozen=True)
class ConvNextConfig(Section, affects="network", step=True):
    """A ConvNeXt (`model.backbone.kind=convnext`); the defaults are those of ConvNeXt-T."""

    depths: tuple[int, ...] = setting((3, 3, 9, 3), "blocks a stage", minimum=1)
    widths: tuple[int, ...] = setting((96, 192, 384, 768), "channels of each stage", minimum=1)
    layer_scale: bool = setting(True, "whether each branch is scaled by channel (not in V2)")
    global_response_norm: bool = setting(False, "whether perceptrons have one (V2)")
    final_norm: bool = setting(
        False,
        "whether each place of the map is normalised at the end (DINOv3); elsewhere the norm "
        "follows the pooling, which is not here",
    )


@dataclasses.dataclass(frozen=True)
class BackboneConfig(Section, affects="network", step=True):
    """From the image to a map of features (paper, section 3.1)."""

    stage_sizes: tuple[int, ...] = setting((3, 4, 6, 3), "residual blocks a stage", minimum=1)
    width: int = setting(64, "channels of the stem; the stages follow from it", minimum=1)
    expansion: int = setting(4, "channels out of a block, over its inner channels", minimum=1)
    variant: str = setting(
        "caffe",
        "geometry: where VGGFace2's weights were trained (caffe), their Keras port, or torchvision",
        choices=("caffe", "keras", "torchvision"),
    )
    batch_norm: str = setting(
        "batch",
        "what training normalises with: statistics of the global batch, of each device's own "
        "examples (local), or the running ones, which then never change (frozen)",
        choices=("batch", "local", "frozen"),
        affects="training",
    )
    init_from: str | None = setting(
        None,
        "initial weights: a file of Keras, PyTorch, safetensors or MATLAB, or an export "
        "(`run.py weights FILE` says what a file is); None: random",
        affects="place",
        step=False,
        training_only=True,
    )
    init_channels: str = setting(
        "auto",
        "channel order of that file's first convolution, where the file does not state it",
        choices=("auto", "rgb", "bgr"),
        affects="place",
        step=False,
        training_only=True,
    )
    init_prefix: str | None = setting(
        None,
        "what stands before the names of the network to take, where that file holds several",
        affects="place",
        step=False,
        training_only=True,
    )
    batch_norm_momentum: float = setting(
        0.9,
        "share of the old running statistics kept at a step",
        minimum=0.0,
        maximum=1.0,
        affects="training",
    )
    frozen_stages: int = setting(
        -1,
        "stages that training leaves as they are, statistics included; -1: none, 0: the stem, "
        "k: the stem and the first k stages (of a mobilenet, pairs of layers; of a vit, blocks)",
        minimum=-1,
        affects="training",
    )
    frozen_blocks: int = setting(
        -1,
        "blocks that training leaves as they are, statistics included, in place of frozen_stages; "
        "-1: none, 0: the stem, k: the stem and the first k blocks",
        minimum=-1,
        affects="training",
    )
    drop_path: float = setting(
        0.0,
        "stochastic depth in the backbone: as model.drop_path, of its last block; not in frozen "
        "blocks",
        minimum=0.0,
        maximum=0.95,
        affects="training",
    )
    kind: str = setting(
        "resnet",
        "resnet; mobilenet: MobileNet-v1 without batch norms, for which width (32) and end "
        "count, and whose stages are 13 pairs of layers; vit: a vision transformer, and "
        "convnext, for which the section of that name counts",
        choices=("resnet", "mobilenet", "vit", "convnext"),
    )
    end: str = setting(
        "pw13",
        "last layer of a mobilenet: conv1, dw1, pw1, ..., dw13 or pw13",
        choices=MOBILENET_LAYERS,
    )
    convolution: str = setting(
        "auto",
        "xla: XLA's own convolutions and pooling; matmul: 1 x 1 convolutions as matrix products, "
        "and what else of convolutions, dense layers and attention a CPU computes faster; cudnn: "
        "XLA's convolutions, and a pooling without atomic additions on a GPU; auto: matmul on a "
        "CPU, cudnn on a GPU, xla elsewhere",
        choices=("auto", "xla", "matmul", "cudnn"),
        affects="speed",
    )
    vit: VitConfig = VitConfig()
    convnext: ConvNextConfig = ConvNextConfig()

    @property
    def blocks_of_stages(self) -> tuple[int, ...]:
        """Blocks of each stage in their order, the stem left out."""
        if self.kind == "mobilenet":
            return (1,) * ((MOBILENET_LAYERS.index(self.end) + 1) // 2)
        if self.kind == "vit":
            return (1,) * self.vit.depth
        if self.kind == "convnext":
            return self.convnext.depths
        return self.stage_sizes

    @property
    def num_stages(self) -> int:
        """Stages besides the stem."""
        return len(self.blocks_of_stages)

    @property
    def num_blocks(self) -> int:
        """Blocks besides the stem."""
        return sum(self.blocks_of_stages)

    @property
    def last_frozen_block(self) -> int:
        """Number of the last block that does not train: 0 is the stem; -1: all train."""
        if self.frozen_blocks >= 0:
            return self.frozen_blocks
        stages = self.frozen_stages
        return stages if stages < 0 else sum(self.blocks_of_stages[:stages])


@dataclasses.dataclass(frozen=True)
class PointsConfig(Section, affects="network", step=True):
    """How points of the face mesh become tokens (`model.inputs` with points)."""

    unit: float = setting(
        0.03, "deviation that the network sees as 1, in distances between the eyes", above=0.0
    )


@dataclasses.dataclass(frozen=True)
class ModelConfig(Section, affects="network", step=True):
    """The network (paper, section 3.1)."""

    inputs: tuple[str, ...] = setting(
        ("image",),
        "what the network takes of a frame: the crop (image), the points of the face mesh "
        "(points), or both; parts for an input that it does not take are left out",
        choices=INPUTS,
    )
    input_size: int = setting(
        224, "side of the network's input, in pixels", minimum=8, maximum=1024
    )
    input_mean: tuple[float, float, float] = setting(
        (131.0912, 103.8827, 91.4953), "red, green, blue, subtracted from values in 0..255"
    )
    input_std: tuple[float, float, float] = setting(
        (1.0, 1.0, 1.0), "red, green, blue, divides what is left", above=0.0
    )
    backbone: BackboneConfig = BackboneConfig()
    points: PointsConfig = PointsConfig()
    embed_dim: int = setting(768, "d, width of patches and tokens", minimum=4)
    num_heads: int = setting(12, "attention heads; must divide embed_dim", minimum=1)
    encoder_layers: int = setting(2, "N_x, self-attention layers over the patches", minimum=0)
    decoder_modules: int = setting(2, "N_t, token modules (self- then cross-attention)", minimum=1)
    mlp_ratio: int = setting(4, "width of the MLPs, over embed_dim", minimum=1)
    decoder_mlp: str = setting(
        "each",
        "MLPs of a token module: one after each of its two attentions, or one at its end",
        choices=("each", "last"),
    )
    head_layers: int = setting(4, "N_d, dense layers of each task's head", minimum=1)
    head_width: int = setting(768, "width of the heads' hidden layers", minimum=1)
    va_variance: str = setting(
        "shared",
        "variance of valence and arousal: the task's, or predicted for each example too, which "
        "gives the predictions standard deviations of their own (docs/uncertainty.md): by the head "
        "of the task (per_example), or by a head that reads the features of all patches and points "
        "and leaves what the mean learns alone (from_features)",
        choices=("shared", "per_example", "from_features"),
    )
    dropout: float = setting(
        0.1, "on residual branches, while training", minimum=0.0, maximum=0.95, affects="training"
    )
    drop_path: float = setting(
        0.0,
        "stochastic depth: share of the examples for which training leaves out a residual branch "
        "of the last transformer layer; from the first layer on it rises linearly; 0: none",
        minimum=0.0,
        maximum=0.95,
        affects="training",
    )
    norm: str = setting("post", "LayerNorm after or before each branch", choices=("post", "pre"))
    position: str = setting("2d", "cos-sin code of a patch", choices=("2d", "1d"))
    token_init_std: float = setting(
        0.02, "standard deviation of the initial tokens", minimum=0.0, affects="training"
    )
    compute_dtype: str = setting(
        "float32",
        "of activations; parameters, statistics, softmax and losses stay float32",
        choices=("float32", "bfloat16"),
        affects="training",
    )
    remat: str = setting(
        "none",
        "activations computed again in the backward pass, to save memory: none; elementwise: all "
        "but the results of convolutions and matrix products; blocks: all inside of residual "
        "blocks and transformer layers",
        choices=("none", "elementwise", "blocks"),
        affects="speed",
    )

    @property
    def predicts_variance(self) -> bool:
        """Whether each example has a variance of valence and arousal of its own."""
        return self.va_variance != "shared"


@dataclasses.dataclass(frozen=True)
class TemporalConfig(Section, affects="network", step=True):
    """A network over time, which reads what a trained network of frames saw (docs/temporal.md).

    It takes the place of the network of `model`, whose `embed_dim` and `va_variance` alone count.
    """

    kind: str = setting(
        "none",
        "none: a network of frames; over time: gru, gated recurrent units; convolution, dilated "
        "ones; attention, a transformer whose positions are the frame numbers",
        choices=TEMPORAL_KINDS,
    )
    frame_model: str | None = setting(
        None,
        "the trained network of frames: a run or an export of arrays, whose task tokens are "
        "computed where they are absent (run.py features --model)",
        affects="place",
        step=False,
        training_only=True,
    )
    tokens: str = setting(
        "task",
        "what is read of each frame: task, the three task tokens; task+patches, the mean of its "
        "patches' and points' tokens too",
        choices=("task", "task+patches"),
    )
    causal: bool = setting(
        False, "whether a frame's answer sees the frames up to it alone, as live use needs"
    )
    window: int = setting(128, "labelled frames that are read at a time", minimum=2, maximum=4096)
    layers: int = setting(
        2,
        "layers of recurrent units; groups of four convolutions, dilated by 1, 2, 4 and 8; or "
        "attention layers",
        minimum=1,
    )
    width: int = setting(128, "channels; even, and with attention a multiple of 8", minimum=8)
    dropout: float = setting(
        0.1,
        "on residual branches, while training",
        minimum=0.0,
        maximum=0.95,
        affects="training",
        training_only=True,
    )

    @property
    def reads_patches(self) -> bool:
        """Whether the mean of the patches' tokens stands beside the task tokens."""
        return self.tokens == "task+patches"


@dataclasses.dataclass(frozen=True)
class TemperatureConfig(Section, affects="training", step=True):
    """Task temperatures (paper, section 3.2)."""

    va: float = setting(1.0, "sigma_v^2, variance of valence/arousal", above=0.0)
    au: float = setting(1.0, "T_a of the action units", above=0.0)
    expr: float = setting(5.0, "T_e of the expressions", above=0.0)


@dataclasses.dataclass(frozen=True)
class UncertaintyConfig(Section, affects="training", step=True):
    """How the tasks are weighed (paper, section 3.2)."""

    kind: str = setting(
        "fixed",
        "fixed: the paper's equations; learned: log variances after Kendall et al. (2018); "
        "likelihood: the exact tempered likelihood",
        choices=("fixed", "learned", "likelihood"),
    )
    temperatures: TemperatureConfig = TemperatureConfig()
    beta_nll: float = setting(
        0.0,
        "with a variance for each example, the loss of valence and arousal times variance^this; "
        "0: the likelihood, 1: noisy examples teach the mean as much as others",
        minimum=0.0,
        maximum=1.0,
    )
    temperature_floor: float = setting(
        0.0,
        "what learned temperatures do not fall below, so that a task that is learnt perfectly gets "
        "no more than a weight of 1 / (2 floor); 0: no floor",
        minimum=0.0,
    )


@dataclasses.dataclass(frozen=True)
class VaLossConfig(Section, affects="training", step=True):
    """Of valence and arousal."""

    ccc: float = setting(
        0.0,
        "share of 1 - CCC over the batch; the rest is the squared error or likelihood",
        minimum=0.0,
        maximum=1.0,
    )
    spread: float = setting(
        0.0,
        "how much of several annotators' spread is in the variance predicted for each example; 0: "
        "that of their mean, the label; 1: that of one annotator's rating (docs/uncertainty.md)",
        minimum=0.0,
        maximum=1.0,
    )


@dataclasses.dataclass(frozen=True)
class AuLossConfig(Section, affects="training", step=True):
    """Of action units; equal gammas are the focal loss, unequal ones the asymmetric loss."""

    positive_weights: str = setting(
        "none",
        "what errors of present units are multiplied by: none, 1; inverse, absent over present "
        "rows in training; sqrt, the square root of that",
        choices=("none", "inverse", "sqrt"),
    )
    gamma_positive: float = setting(
        0.0, "exponent of 1 - p where a unit is present", minimum=0.0, maximum=10.0
    )
    gamma_negative: float = setting(
        0.0, "exponent of p where a unit is absent", minimum=0.0, maximum=10.0
    )
    margin: float = setting(
        0.0, "probability up to which an absent unit costs nothing", minimum=0.0, maximum=0.9
    )
    label_smoothing: float = setting(
        0.0, "share of a label that becomes one half", minimum=0.0, maximum=0.9
    )


@dataclasses.dataclass(frozen=True)
class ExprLossConfig(Section, affects="training", step=True):
    """Of expressions."""

    class_weights: str = setting(
        "none",
        "weights of the classes, by their labels in training: none; inverse, of their number; "
        "effective, of their effective number (Cui et al. 2019)",
        choices=("none", "inverse", "effective"),
    )
    effective_beta: float = setting(
        0.999, "beta of class_weights=effective", minimum=0.0, maximum=0.9999999
    )
    gamma: float = setting(0.0, "exponent of 1 - p, the focal loss", minimum=0.0, maximum=10.0)
    label_smoothing: float = setting(
        0.0, "share of a label that is spread over all classes", minimum=0.0, maximum=0.9
    )


@dataclasses.dataclass(frozen=True)
class LossConfig(Section, affects="training", step=True):
    """Errors in place of the paper's (docs/losses.md)."""

    va: VaLossConfig = VaLossConfig()
    au: AuLossConfig = AuLossConfig()
    expr: ExprLossConfig = ExprLossConfig()


@dataclasses.dataclass(frozen=True)
class AugmentationConfig(Section, affects="training", step=True, training_only=True):
    """Random geometry, on the device (paper, section 4)."""

    rotation_degrees: float = setting(
        10.0, "angles are uniform in +- this", minimum=0.0, maximum=45.0
    )
    translation: float = setting(
        0.1, "shifts are uniform in +- this share of the side", minimum=0.0, maximum=1.0
    )
    zoom: tuple[float, float] = setting((0.9, 1.1), "smallest and largest zoom", above=0.0)
    flip: bool = setting(True, "mirror half of the images; the labels are symmetric")
    mixup_alpha: float = setting(
        0.0, "MixUp with Beta(alpha, alpha); 0: none; needs an even batch", minimum=0.0
    )
    points_noise: float = setting(
        0.0,
        "of face points: standard deviation of noise on each coordinate, in distances between "
        "the eyes",
        minimum=0.0,
        maximum=1.0,
    )
    points_identity: float = setting(
        0.0,
        "of face points and baseline alike: standard deviation of smooth random displacements, as "
        "faces of other people differ",
        minimum=0.0,
        maximum=1.0,
    )
    points_change: float = setting(
        0.0, "of face points alone: as points_identity", minimum=0.0, maximum=1.0
    )
    points_gain: float = setting(
        0.0,
        "what face points differ from a baseline that is known is multiplied by 1 +- this, uniform",
        minimum=0.0,
        maximum=1.0,
    )
    baseline_dropout: float = setting(
        0.0,
        "share of the examples whose face at rest counts as unknown",
        minimum=0.0,
        maximum=1.0,
    )
    method: str = setting(
        "auto",
        "resampling: gather (CPU, GPU) or separable matrix products (TPU); auto: by backend",
        choices=("auto", "gather", "separable"),
    )


@dataclasses.dataclass(frozen=True)
class LoraConfig(Section, affects="training", step=True, training_only=True):
    """Low-rank adapters: chosen kernels stay as they are, and small factors beside them train."""

    rank: int = setting(0, "of the adapters; 0: none", minimum=0)
    alpha: float = setting(16.0, "an adapter counts alpha / rank", above=0.0)
    kernels: tuple[str, ...] = setting(
        ("attention/.*kernel",),
        "which kernels have adapters: regular expressions, each found in a name as "
        "encoder/layer1/attention/query/kernel or encoder/layer1/mlp_out/kernel",
    )
    trains: str = setting(
        "rest",
        "what trains besides them, but for their kernels: nothing; the heads; the rest, which is "
        "all but the backbone; or all",
        choices=("nothing", "heads", "rest", "all"),
    )


@dataclasses.dataclass(frozen=True)
class OptimizerConfig(Section, affects="training", step=True, training_only=True):
    """Two groups of parameters, the backbone and all else, each at a rate of its own."""

    kind: str = setting(
        "adamw",
        "adamw: the paper's; muon: kernels move by their momentum made orthogonal, at AdamW's "
        "size, and all else by AdamW: learns from random weights in a fraction of the steps "
        "(docs/fine_tuning.md)",
        choices=("adamw", "muon"),
    )
    batch_size: int = setting(
        64, "examples a step, over all devices and processes", minimum=1, step=False
    )
    accumulation_steps: int = setting(
        1,
        "microbatches in which a batch goes through the network, one after the other, to save "
        "memory: the same gradients, but batch norm sees a microbatch at a time",
        minimum=1,
    )
    gradient_dtype: str = setting(
        "float32",
        "in which gradients are summed over examples and devices: float32, or compute, the type "
        "of model.compute_dtype, for half of the traffic with bfloat16",
        choices=("float32", "compute"),
    )
    epochs: int = setting(10, "passes over the training set", minimum=1)
    backbone_learning_rate: float = setting(5e-5, "of the backbone, at the start", minimum=0.0)
    backbone_stage_multipliers: tuple[float, ...] = setting(
        (1.0,),
        "of the backbone's learning rate: one for the stem and one for each stage, or one for "
        "all; stages that are not to learn go into model.backbone.frozen_stages",
        above=0.0,
    )
    layer_decay: float = setting(
        1.0,
        "of the backbone's learning rate, from each block to the one before it: block b of n "
        "learns at layer_decay^(n + 1 - b) of it, the stem as block 0; 1: all alike",
        above=0.0,
        maximum=1.0,
    )
    backbone_schedule: str = setting(
        "exponential",
        "exponential: times backbone_decay each epoch; cosine: linear warm-up, then a half cosine",
        choices=("exponential", "cosine"),
    )
    backbone_decay: float = setting(
        0.99, "factor an epoch of the exponential schedule", above=0.0, maximum=1.0
    )
    learning_rate: float = setting(6e-5, "highest rate of all else", minimum=0.0)
    schedule: str = setting(
        "inverse_sqrt",
        "linear warm-up, then: inverse square root of the step, or a half cosine to 0",
        choices=("inverse_sqrt", "cosine"),
    )
    warmup_epochs: float = setting(2.5, "length of the warm-up", minimum=0.0, maximum=1e6)
    weight_decay: float = setting(
        1e-4, "on kernels: not on biases, norms, tokens, temperatures", minimum=0.0
    )
    beta1: float = setting(0.9, "decay of AdamW's first moment", minimum=0.0, maximum=0.9999999)
    beta2: float = setting(0.999, "decay of AdamW's second one", minimum=0.0, maximum=0.9999999)
    epsilon: float = setting(1e-7, "AdamW's", above=0.0)
    gradient_clip: float = setting(
        0.0, "largest global norm of the gradients; 0: no limit", minimum=0.0
    )
    trains: tuple[str, ...] | None = setting(
        None,
        "parts of the names of the parameters that learn, as head_va_variance: regular "
        "expressions, each found in a name of parameters.txt; None: all learn",
    )
    lora: LoraConfig = LoraConfig()


@dataclasses.dataclass(frozen=True)
class MeshConfig(Section, affects="speed", step=True, training_only=True):
    """Devices as a grid; a batch is split over both axes, large parameters over `fsdp`."""

    data: int = setting(-1, "devices along `data`; -1: all that `fsdp` leaves", minimum=-1)
    fsdp: int = setting(1, "devices along `fsdp`; 1: parameters whole on each device", minimum=1)
    rules: tuple[str, ...] = setting(
        (".=large",),
        "what is split along `fsdp`, the first that fits an array's name: PATTERN=large, =whole or "
        "=AXIS, with a regular expression, as moments/=large; see docs/processes.md",
    )


@dataclasses.dataclass(frozen=True)
class TrainingConfig(Section, training_only=True):
    """The loop."""

    init_from: str | None = setting(
        None,
        "weights of a whole network to start from: a run, an export, or the name of a bundled "
        "model, as geometry; None: random, but for model.backbone.init_from",
        affects="place",
    )

    ema_decay: float = setting(
        0.0,
        "decay of a moving average of the weights, which is then what is scored and exported; "
        "0: none, 0.999 to 0.9999 for long trainings",
        minimum=0.0,
        maximum=0.999999,
        affects="training",
        step=True,
    )
    log_every_steps: int = setting(
        50, "steps between two lines of progress", minimum=1, affects="display"
    )
    evaluate_every_epochs: float = setting(
        1.0,
        "epochs between two evaluations on the validation set",
        above=0.0,
        maximum=1e6,
        affects="course",
    )
    checkpoint_every_steps: int = setting(
        500,
        "steps between two checkpoints, besides those at each evaluation",
        minimum=1,
        affects="course",
    )
    keep_checkpoints: int = setting(
        2,
        "newest checkpoints kept, besides the best by P; with 1, a damaged one may be the last",
        minimum=1,
        affects="safety",
    )
    on_save_failure: str = setting(
        "stop",
        "when a disk refuses a checkpoint: stop, or continue with the last good one kept",
        choices=("stop", "continue"),
        affects="safety",
    )
    on_bad_step: str = setting(
        "stop",
        "when a loss or gradient is not finite, or the loss is past loss_limit: stop, or skip the "
        "step; it changes nothing either way, and its batch is kept in WORKDIR/replay",
        choices=("stop", "skip"),
        affects="safety",
    )
    loss_limit: float = setting(
        1e4, "largest loss of a valid step; 0: no limit", minimum=0.0, affects="safety", step=True
    )
    input_timeout_s: float = setting(
        600.0,
        "longest wait for a batch, in seconds, before the host is named; 0: no limit",
        minimum=0.0,
        affects="safety",
    )
    compilation_cache: str = setting(
        "workdir",
        "compiled programs are kept for the next start: in WORKDIR/compiled, in the user's cache "
        "folder for all runs, or not",
        choices=("workdir", "user", "off"),
        affects="place",
    )
    xla_preset: str = setting(
        "none",
        "flags for the compiler, see docs/launch.md; your own XLA_FLAGS and LIBTPU_INIT_ARGS win",
        choices=("none", "onednn", "gpu", "gpu_deterministic", "tpu"),
        affects="speed",
    )


@dataclasses.dataclass(frozen=True)
class SmoothingConfig(Section, affects="evaluation"):
    """Smoothing of the predictions over time, before they are scored (paper, section 4)."""

    kernel: str = setting(
        "box", "weights: the mean of a window, or a Gaussian", choices=("box", "gaussian")
    )
    unit: str = setting(
        "frames",
        "what windows count: frame numbers, or predictions, however far apart",
        choices=("frames", "samples"),
    )
    on: str = setting(
        "logits",
        "what is averaged for action units and expressions; valence and arousal as they are",
        choices=("logits", "probabilities", "values"),
    )
    va: float = setting(
        0.0,
        "length of the box, or standard deviation of the Gaussian; 0: none; the paper's is 30",
        minimum=0.0,
        maximum=1e9,
    )
    au: float = setting(0.0, "of the action units, as va", minimum=0.0, maximum=1e9)
    expr: float = setting(0.0, "of the expressions, as va", minimum=0.0, maximum=1e9)


@dataclasses.dataclass(frozen=True)
class EvaluationConfig(Section, affects="evaluation"):
    """The official metric on the validation set."""

    batch_size: int = setting(64, "examples a step, over all devices and processes", minimum=1)
    checkpoint: str = setting(
        "best", "which checkpoint: the best by P, or the newest", choices=("best", "last")
    )
    mc_dropout_samples: int = setting(
        0,
        "samples of the network with dropout acting, whose mean is the prediction and whose "
        "spread its epistemic uncertainty; 0: one prediction without dropout",
        minimum=0,
        maximum=1000,
    )
    probability: str = setting(
        "fitted",
        "of action units and expressions: fitted, what the loss compared with the labels (outputs "
        "over T with uncertainty.kind=likelihood, else as they are), or paper, eq. 1 (over T)",
        choices=("fitted", "paper"),
    )
    gallery_size: int = setting(
        24, "faces shown in the report", minimum=0, maximum=200, affects="display"
    )
    smoothing: SmoothingConfig = SmoothingConfig()
    calibration: str | None = setting(
        None,
        "file of run.py calibrate, applied after the smoothing and before the score",
        affects="place",
    )


@dataclasses.dataclass(frozen=True)
class ProvenanceConfig(Section, affects="record", training_only=True):
    """What the weights have seen; kept with every checkpoint, export and table of predictions."""

    training_data: tuple[str, ...] | None = setting(
        None,
        "names of the data sets that are trained on; None: those of their folders, with the data "
        "set whose layout they have",
    )
    pretrained_on: tuple[str, ...] | None = setting(
        None,
        "names of the data sets that the initial weights were trained on, as VGGFace2; "
        "what their file says is added",
    )
    aff_wild2_pretrained: bool = setting(
        False,
        "whether the initial weights saw Aff-Wild2, which ABAW's rules forbid; true too where "
        "they inherit it",
    )


@dataclasses.dataclass(frozen=True)
class Config(Section):
    """One experiment."""

    name: str = setting("unnamed", "title of the run, in its report", affects="course")
    seed: int = setting(
        0,
        "of initial weights, order of examples and augmentation",
        minimum=0,
        maximum=2**32 - 1,
        affects="training",
    )
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    temporal: TemporalConfig = TemporalConfig()
    uncertainty: UncertaintyConfig = UncertaintyConfig()
    loss: LossConfig = LossConfig()
    augmentation: AugmentationConfig = AugmentationConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    mesh: MeshConfig = MeshConfig()
    training: TrainingConfig = TrainingConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    provenance: ProvenanceConfig = ProvenanceConfig()

    @property
    def is_over_time(self) -> bool:
        """Whether the network reads windows of frames, in place of frames."""
        return self.temporal.kind != "none"
