"""A trained network that answers in prediction tables.

Dimension letters: N rows, B batch, S side of a stored crop; K images, M decoder modules, T task
tokens (3), P patches.
"""

import dataclasses
import functools
import itertools
import os
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from numpy.typing import NDArray
from PIL import Image

from mtl_face import config as config_lib
from mtl_face import probabilities
from mtl_face.config import Config
from mtl_face.errors import ConfigError, ImageError
from mtl_face.evaluation.calibration import Calibration
from mtl_face.face_table import FaceTable
from mtl_face.inference.dropout import EPISTEMIC, make_dropout_step
from mtl_face.inference.recent import Recent
from mtl_face.inputs import (
    BASELINE,
    GAPS,
    IMAGE,
    POINTS,
    WINDOWS,
    Arrays,
    answer,
    is_input,
    specification,
    windows,
)
from mtl_face.model.convolution import compiler_options
from mtl_face.model.network import (
    ATTENTION,
    PATCH_TOKEN,
    TASK_TOKENS,
    blank_inputs,
    network_of,
)
from mtl_face.objective import augment, resample
from mtl_face.objective.uncertainty import FIXED
from mtl_face.pictures import AnyImage
from mtl_face.tables import (
    EPISTEMIC_FIELDS,
    STD_COLUMNS,
    TRAINING,
    VALUE_FIELDS,
    FrameTable,
    PredictionTable,
    as_fields,
    untrained,
)
from mtl_face.tasks import AU, EXPR, OUTPUT_SIZES, VA, VA_LOG_VARIANCE
from mtl_face.weights.provenance import versions

Step = Callable[..., dict[str, jax.Array]]

_BATCHES = (1, 8)
"""Sizes of a batch of few crops; of many it is `evaluation.batch_size`. One program for each."""


class Forward:
    """The network of some settings, from stored crops to outputs, compiled once for all weights.

    `mesh` are the devices that share a batch; None for JAX's default device.
    """

    shows_attention = True  # see `Predictor.cross_attention`
    calibration: Calibration | None = None  # inside a program, see `program.ProgramForward`
    path: Path | None = None  # of a program

    def __init__(self, config: Config, *, mesh: Mesh | None = None) -> None:
        platform = jax.default_backend() if mesh is None else mesh.devices.flat[0].platform
        self.config = config
        self.mesh = mesh
        self._resampling = resample.resolve_method(config.augmentation.method, platform)  # type: ignore[arg-type]
        self._how: dict[str, Any] = {"compiler_options": compiler_options(platform)}
        if mesh is not None:
            self._how["out_shardings"] = NamedSharding(mesh, PartitionSpec())
        devices = 1 if mesh is None else mesh.size
        self.network = network_of(config, platform=platform, devices=devices)

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the arrays that `plain` takes of each face, as in `model.inputs`."""
        return (WINDOWS,) if self.config.is_over_time else self.config.model.inputs

    def prepare(self, inputs: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
        """Arrays as they are stored -> inputs of the network: images are resized, as float32."""
        if IMAGE not in inputs:
            return dict(inputs)
        image_BHWC, size = inputs[IMAGE], self.config.model.input_size
        transform_B23 = augment.identity_transforms(
            image_BHWC.shape[0], stored_size=image_BHWC.shape[1], input_size=size
        )
        resized = resample.resample(
            image_BHWC, transform_B23, input_size=size, method=self._resampling
        )
        return {**inputs, IMAGE: resized}

    @functools.cached_property
    def plain(self) -> Step:
        """Jitted `(params, batch_stats, inputs, index) -> outputs`, see `make_predict_step`."""
        return make_predict_step(self.network, prepare=self.prepare, **self._how)

    @functools.cached_property
    def with_tokens(self) -> Step | None:
        """`plain` with the task tokens among the outputs; None of what has none."""
        if self.config.is_over_time:
            return None
        options = {"return_tokens": True}
        return make_predict_step(self.network, prepare=self.prepare, options=options, **self._how)

    @functools.cached_property
    def sampled(self) -> Step | None:
        """The same with samples of dropout, see `make_dropout_step`; None if none are wanted."""
        samples = self.config.evaluation.mc_dropout_samples
        if not samples:
            return None
        return make_dropout_step(
            self.network,
            prepare=self.prepare,
            samples=samples,
            seed=self.config.seed,
            **self._how,
        )

    def abstract_variables(self) -> dict[str, Any]:
        """Shapes and dtypes of the network's `params` and `batch_stats`."""
        network = functools.partial(self.network.init, train=False)
        inputs = blank_inputs(self.config)
        return {"batch_stats": {}, **jax.eval_shape(network, jax.random.key(0), inputs)}

    def place(self, batch: dict[str, NDArray[Any]]) -> dict[str, jax.Array]:
        """A batch on the devices, split by example."""
        if self.mesh is None:
            return jax.device_put(batch)
        by_example = NamedSharding(self.mesh, PartitionSpec(self.mesh.axis_names))
        return jax.device_put(batch, by_example)


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Predictor:
    """A network with its weights.

    Attributes:
        temperatures: T of each task.
        step: optimizer steps that the weights have seen.
        origin: what every table of predictions says of the weights: `weights_sha256`,
            `provenance`, `training` (see `tables.TRAINING`); empty where nothing is known.
        crop: how the crops of its training were cut, as `faces.align.specification`; empty of a
            run, whose crops are taken to be cut as faces are now.
        frames: of a network over time: the network of frames that it reads.
    """

    forward: Forward
    variables: Mapping[str, Any]
    temperatures: Mapping[str, float]
    step: int
    origin: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    crop: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    frames: "Predictor | None" = None

    def __repr__(self) -> str:
        return (
            f"Predictor({self.config.name!r}, step {self.step:,}, crops of {self.crop_size} pixels)"
        )

    @property
    def config(self) -> Config:
        """The settings of the network and of what is made of it."""
        return self.forward.config

    @property
    def probability(self) -> dict[str, Any]:
        """How outputs become probabilities, see `probabilities.statement`."""
        return probabilities.statement(
            self.config.uncertainty.kind, self.temperatures, self.config.evaluation.probability
        )

    @property
    def calibration(self) -> Calibration | None:
        """That inside of a program; tables of faces have it applied, `PredictionTable` not."""
        return self.forward.calibration

    @property
    def calibration_file(self) -> dict[str, str]:
        """What tables say of a calibration inside of a program: its `file` and `file_sha256`."""
        return {"file": str(self.forward.path), "file_sha256": self.origin["program_sha256"]}

    @property
    def crop_size(self) -> int:
        """Side of the crops that the network was trained on, S, in pixels."""
        return self._of_faces.config.data.image_size

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the arrays that the network takes of a face, see `predict_arrays`."""
        return self._of_faces.forward.inputs

    @property
    def _of_faces(self) -> "Predictor":
        """The network that looks at faces."""
        return self.frames or self

    @property
    def shows_attention(self) -> bool:
        """Whether `cross_attention` can be asked for."""
        return self.forward.inputs == (IMAGE,) and self.forward.shows_attention

    def predict(
        self,
        images: AnyImage | Sequence[AnyImage],
        *,
        neutral: AnyImage | None = None,
        mesh: bool = False,
    ) -> FaceTable:
        """Finds and answers the faces of photos.

        Args:
            images: one or several: paths, images of Pillow, or uint8 [height, width, 3] arrays of
                R, G, B.
            neutral: of a network that takes points: a picture of the person at rest, whom all
                faces show; they are judged by how they differ from it.
            mesh: whether the table keeps all points of each face.

        Returns:
            A row a face, the largest of a photo first, or one row of a photo without a face. The
            sources are the paths, or `image 1` and so on.

        Raises:
            ImageError: a photo cannot be read, or the neutral one shows no face.
            ConfigError: the network takes no points, and cannot differ from a neutral picture; or
                its crops were cut in another way than faces are cut here.
        """
        from mtl_face.inference import stream

        one = isinstance(images, str | os.PathLike | Image.Image) or getattr(images, "ndim", 4) == 3
        several: list[Any] = [images] if one else list(images)  # type: ignore[arg-type]
        names = [
            os.fspath(image) if isinstance(image, str | os.PathLike) else f"image {number}"
            for number, image in enumerate(several, start=1)
        ]
        return stream.predict_images(self, several, names=names, neutral=neutral, mesh=mesh)

    def stream(
        self, video: str | os.PathLike[str], *, relative: bool = True, mesh: bool = False
    ) -> Iterator[FaceTable]:
        """Finds, follows and answers the faces of a video, a table a frame as they come.

        Args:
            video: a file, or `camera:0`.
            relative: of a network that takes points: whether a person is judged by how the face
                differs from itself at rest, as far as earlier frames show that.
            mesh: whether the tables keep all points of each face.

        Yields:
            A row a face, or one row of a frame without a face or one that cannot be decoded.
            Answers are not smoothed; a calibration inside of a program is applied. A network over
            time answers each by the frames of its person up to it.

        Raises:
            VideoError: the file is no video, or cannot be read.
            CameraError: there is no such camera, or it goes away.
            ConfigError: the network's crops were cut in another way than faces are cut here; or it
                is one over time that also sees the frames to come.
        """
        from mtl_face.inference import stream

        return stream.predict_video(self, video, relative=relative, mesh=mesh)

    def predict_crops(
        self, crops: NDArray[np.uint8] | Sequence[NDArray[np.uint8]]
    ) -> PredictionTable:
        """Predictions for aligned face crops.

        Args:
            crops: uint8 [N, height, width, 3], or a list of uint8 [height, width, 3] of any
                sizes; R, G, B in 0..255, cut as the training crops were. Those that are not
                `crop_size` high and wide are resized first, as training resizes them. Of a network
                that takes points these are found in the crops, without a baseline.

        Returns:
            N rows in the order given: `frame` counts from 1, `video` is `crops`.

        Raises:
            ImageError: an array has another dtype or number of axes, or its points are not found.
        """
        if getattr(crops, "ndim", 4) != 4:
            raise ImageError(
                f"crops is an array of shape {list(np.shape(crops))}, "
                "expected uint8 [N, height, width, 3]",
                remedy="give a single crop as a list: predict_crops([crop])",
            )
        size = self.crop_size
        images = [_stored(crop, number, size) for number, crop in enumerate(crops, start=1)]
        image_NSSC = np.array(images, np.uint8).reshape(-1, size, size, 3)
        arrays: dict[str, NDArray[Any]] = {IMAGE: image_NSSC}
        if POINTS in self.inputs:
            from mtl_face.faces.points import points_of_crops

            arrays[POINTS], found_N = points_of_crops(image_NSSC)
            if not found_N.all():
                number = np.flatnonzero(~found_N)[0] + 1
                raise ImageError(
                    f"crop {number} shows no face whose points are found",
                    remedy="leave it out, or cut it as the card of the model says",
                )
        return self.predict_arrays(arrays)

    def predict_arrays(self, arrays: Mapping[str, NDArray[Any]]) -> PredictionTable:
        """Predictions for inputs that are ready for the network, each row of the arrays a face.

        Args:
            arrays: those that `inputs` names: `image` uint8 [N, S, S, 3], R, G, B in 0..255, with
                S the `crop_size`; `points` float32 [N, 468, 3], from `faces.geometry.normalise`;
                and beside `points` optionally `baseline`, those of the person at rest, of the same
                shape: 0 where they are unknown, which is the default. Others are ignored.

        Returns:
            N rows as from `predict_crops`. To a network over time each is a video of one frame.

        Raises:
            ValueError: an array is missing, or has another dtype or shape.
        """
        if self.frames is not None:
            return self.predict_next(self.read(arrays), self.recent())
        arrays = self._checked(arrays)
        return self.predict_batches(_numbered(len(arrays[self.inputs[0]])), self._batches(arrays))

    def recent(self) -> Recent:
        """What a network over time knows of earlier frames, which is nothing yet."""
        return Recent(self.config.temporal.window)

    def predict_next(
        self,
        arrays: Mapping[str, NDArray[Any]],
        recent: Recent,
        person_N: NDArray[np.int64] | None = None,
        frame_N: NDArray[np.int64] | None = None,
    ) -> PredictionTable:
        """Predictions of a network over time for faces, by what came before.

        Args:
            arrays: what `read` gives.
            recent: of earlier calls; these faces are added.
            person_N: number of each face's person; None: each is another person.
            frame_N: number of its frame, see `Recent.windows`; None: of one frame.

        Returns:
            N rows as from `predict_crops`.
        """
        count = len(next(iter(arrays.values())))
        persons = np.arange(count) if person_N is None else person_N
        frames = np.ones(count, np.int64) if frame_N is None else frame_N

        def batches() -> Iterator[dict[str, jax.Array]]:
            size = self.config.evaluation.batch_size  # windows of all faces at once may be large
            for begin in range(0, count, size):
                rows = slice(begin, begin + size)
                part = {name: array[rows] for name, array in arrays.items()}
                found, index_nW = recent.windows(part, persons[rows], frames[rows])
                yield from self._batches(found, np.where(index_nW < 0, -1, index_nW + begin))

        return self.predict_batches(_numbered(count), batches())

    def read(self, arrays: Mapping[str, NDArray[Any]]) -> Arrays:
        """What this network over time takes of faces: what its network of frames saw of them.

        Args:
            arrays: as those of `predict_arrays`.

        Returns:
            Arrays [N, ...] as `mtl_face.inputs.windows` names and describes them, without gaps.

        Raises:
            ValueError, ConfigError: as `predict_arrays` and `token_blocks`.
        """
        assert self.frames is not None  # it is one over time
        model, patches = self.config.model, self.config.temporal.reads_patches
        expected = windows(1, model.embed_dim, va_variance=model.predicts_variance, patches=patches)
        parts = {
            name: [np.zeros((0, *shape[1:]), dtype)]
            for name, (dtype, shape) in expected.items()
            if name != GAPS
        }
        batches = self.frames._batches(self.frames._checked(arrays))
        for block in self.frames.token_blocks(batches, patches=patches):
            for name, array in block.items():
                parts[name if name == TASK_TOKENS else answer(name)].append(array)
        return {name: np.concatenate(arrays) for name, arrays in parts.items()}

    def _checked(self, arrays: Mapping[str, NDArray[Any]]) -> Arrays:
        """The arrays that the network of frames takes; ValueError as of `predict_arrays`."""
        wanted = specification(self.inputs, self.crop_size)
        count = len(arrays[self.inputs[0]]) if self.inputs[0] in arrays else 0
        if POINTS in wanted and POINTS in arrays and BASELINE not in arrays:
            arrays = {**arrays, BASELINE: np.zeros_like(arrays[POINTS])}
        for name, (dtype, shape) in wanted.items():
            if name not in arrays:
                raise ValueError(f"arrays have no {name!r}, and the network takes {self.inputs}")
            array = arrays[name]
            if array.dtype != dtype or array.shape != (count, *shape):
                raise ValueError(
                    f"{name} is {array.dtype} {array.shape}, expected {dtype} {(count, *shape)}"
                )
        return {name: arrays[name] for name in wanted}

    def predict_batches(
        self,
        frames: FrameTable,
        batches: Iterable[dict[str, jax.Array]],
        *,
        sample_dropout: bool = True,
    ) -> PredictionTable:
        """Predictions for every row of a table, whose labels are not looked at.

        A batch holds the arrays that `forward.inputs` names and `index` int32 [B], of windows
        [B * W], the row that each example belongs to (-1: padding), on the devices. Without
        `sample_dropout` there is one prediction without dropout, whatever
        `evaluation.mc_dropout_samples` says.

        Returns a row for each of `frames`, with NaN for a task that the network was never trained
        on. Its metadata name the settings, the step, the temperatures and the weights.
        """
        config, probability = self.config, self.probability
        step, sampled = self.forward.plain, False
        if sample_dropout and self.forward.sampled is not None:
            divisors = {task: jnp.float32(value) for task, value in probability["divisors"].items()}
            step, sampled = functools.partial(self.forward.sampled, divisors=divisors), True
        outputs = predict_rows(
            step,
            self.variables["params"],
            self.variables["batch_stats"],
            iter(batches),
            num_rows=len(frames),
            sizes=output_sizes(va_variance=config.model.predicts_variance, sampled=sampled),
        )
        columns: dict[str, Any] = table_columns(
            outputs,
            kind=config.uncertainty.kind,
            temperatures=self.temperatures,
            divisors=probability["divisors"],
        )
        for task in untrained(self.origin.get(TRAINING)):
            stds = STD_COLUMNS if task == VA else ()
            for field in (*VALUE_FIELDS[task], *stds, *EPISTEMIC_FIELDS[task]):
                if field in columns:
                    columns[field] = np.full_like(columns[field], np.nan)
        return PredictionTable(
            dataset=frames.dataset.astype(np.str_),
            video=frames.video.astype(np.str_),
            frame=frames.frame,
            image=frames.image.astype(np.str_),
            **columns,
            metadata={
                "config": config_lib.to_dict(config),
                "step": self.step,
                "temperatures": dict(self.temperatures),
                "probability": probability,
                "mc_dropout_samples": config.evaluation.mc_dropout_samples if sampled else 0,
                "smoothing": None,
                "calibration": None,
                "versions": versions(),
                **self.origin,
            },
        )

    def token_blocks(
        self, batches: Iterable[dict[str, jax.Array]], *, patches: bool = False
    ) -> Iterator[dict[str, NDArray[Any]]]:
        """The task tokens of rows, and the network's own answers, in the order of the rows.

        Batches are those of `predict_batches`, whose rows follow each other.

        Yields:
            Arrays of the next rows: `tokens` float16 [n, 3, D] in the order of `tasks.TASKS`, with
            `patches` [n, 4, D], the mean of the tokens of patches and points being the last; and as
            the network gives them `va`, `au`, `expr` and, of a network with a variance for each
            example, `va_log_variance`, float32 [n, size]. Logits are those that the loss compared
            with the labels (`evaluation.probability=fitted`).

        Raises:
            ConfigError: the model is a program or a network over time, which give no tokens.
        """
        step = self.forward.with_tokens
        if step is None:
            raise ConfigError(
                "a program, or a network over time, gives no task tokens",
                path=self.forward.path,
                remedy="give a network of frames: its run, or an export of arrays",
            )
        config = self.config
        divisors = probabilities.divisors(
            config.uncertainty.kind, self.temperatures, probabilities.FITTED
        )
        results = (
            step(
                self.variables["params"],
                self.variables["batch_stats"],
                {name: array for name, array in batch.items() if is_input(name)},
                batch["index"],
            )
            for batch in batches
        )
        # A batch behind: the devices work on the next one meanwhile.
        for result, _ in itertools.pairwise(itertools.chain(results, [None])):
            assert result is not None
            if not patches:
                del result[PATCH_TOKEN]  # stays where it is
            host = jax.device_get(result)
            valid_B = host.pop("index") >= 0
            token_BTD = host.pop(TASK_TOKENS)
            if patches:
                token_BTD = np.concatenate([token_BTD, host.pop(PATCH_TOKEN)[:, None]], axis=1)
            yield {
                TASK_TOKENS: token_BTD[valid_B].astype(np.float16),
                **{
                    name: (array[valid_B] / divisors.get(name, 1.0)).astype(np.float32)
                    for name, array in host.items()
                },
            }

    def export(
        self,
        path: str | os.PathLike[str],
        *,
        format: str = "onnx",
        crop_size: int | None = None,
        calibration: Any = None,
    ) -> Path:
        """Writes the network for use elsewhere, see `mtl_face.run.export.export`.

        Args:
            path: file or folder to write.
            format: `onnx` or `stablehlo`, one file of the program from uint8 crops to named
                answers; `safetensors` or `orbax`, a folder of arrays.
            crop_size: of a program: side of the crops that it takes; None as in training.
            calibration: of a program: a `Calibration` to apply, or the file of one.

        Returns:
            What was written.

        Raises:
            ConfigError, WorkdirError, ExportError, CalibrationError: as there.
        """
        import mtl_face

        return mtl_face.export_model(
            self,
            os.fspath(path),
            format=format,  # type: ignore[arg-type]
            crop_size=crop_size,
            calibration=calibration,
        )

    def cross_attention(self, image_KSSC: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Where the task tokens look in stored crops: weights of the decoder's cross-attention.

        It is computed on one device of this process, so that one process of many may ask for it.

        Returns:
            float32 [K, M, heads, T, P]: tokens in the order of `mtl_face.tasks.TASKS`, patches in
            row-major order; each row over P sums to 1.

        Raises:
            ConfigError: `shows_attention` does not hold.
        """
        if not self.shows_attention:
            raise ConfigError(
                "this model has no attention to show",
                remedy="take the run or the export of a network that takes images alone",
            )

        @jax.jit
        def attend(variables: Any, image_BSSC: jax.Array) -> jax.Array:
            outputs: Any = self.forward.network.apply(
                variables,
                self.forward.prepare({IMAGE: image_BSSC}),
                train=False,
                return_attention=True,
            )
            return outputs[ATTENTION]

        device = jax.local_devices()[0]
        # Through the host: one process alone cannot move arrays that lie on the devices of several.
        variables = jax.device_put(jax.device_get(self.variables), device)
        size, count = _BATCHES[-1], len(image_KSSC)
        # One shape for all batches: the network is compiled once.
        padding = np.zeros((-count % size, *image_KSSC.shape[1:]), np.uint8)
        padded = np.concatenate([image_KSSC, padding])
        with jax.default_device(device):
            parts = [
                np.asarray(attend(variables, padded[start : start + size]))
                for start in range(0, count, size)
            ]
        return np.concatenate(parts)[:count]

    def _batches(
        self, arrays: Mapping[str, NDArray[Any]], index: NDArray[np.int32] | None = None
    ) -> Iterator[dict[str, jax.Array]]:
        """The rows of arrays of one length in batches of one shape, the last one padded.

        `index`, of the same length, says which rows of a table they answer; None: each its own.
        """
        count = len(next(iter(arrays.values())))
        if index is None:
            index = np.arange(count, dtype=np.int32)
        size = next((size for size in _BATCHES if count <= size), self.config.evaluation.batch_size)
        if self.forward.mesh is not None:
            size = -(-size // self.forward.mesh.size) * self.forward.mesh.size
        for start in range(0, count, size):
            own = index[start : start + size]
            padding = np.full((size - len(own), *own.shape[1:]), -1, np.int32)
            batch = {"index": np.concatenate([own, padding]).reshape(-1)}
            for name, array in arrays.items():
                batch[name] = np.zeros((size, *array.shape[1:]), array.dtype)
                batch[name][: count - start] = array[start : start + size]
            yield self.forward.place(batch)


def _numbered(count: int) -> FrameTable:
    """Rows for as many faces, of which nothing is known."""
    frame_N = np.arange(1, count + 1)
    return FrameTable.from_columns(
        dataset="crops",
        video=["crops"] * count,
        frame=frame_N,
        image=frame_N.astype(str),
        root=".",
    )


def make_predict_step(
    network: nn.Module,
    *,
    prepare: Callable[[dict[str, jax.Array]], dict[str, jax.Array]],
    options: Mapping[str, Any] = types.MappingProxyType({}),
    **how: Any,
) -> Step:
    """Builds the prediction step.

    `prepare` makes the network's inputs of the arrays of a batch, by name; `options` are given to
    the network, `how` to `jax.jit`.

    Returns:
        Jitted `(network parameters, batch_stats, inputs, index) -> outputs`: `va` [B, 2], `au`
        [B, 12] and `expr` [B, 8] (logits), float32, and `index` [B] as given. Parameters and
        statistics may lie in any way.
    """

    def predict(
        params: Any, batch_stats: Any, inputs: dict[str, jax.Array], index_B: jax.Array
    ) -> dict[str, Any]:
        outputs: Any = network.apply(
            {"params": params, "batch_stats": batch_stats}, prepare(inputs), train=False, **options
        )
        return {**outputs, "index": index_B}

    return jax.jit(predict, **how)


def predict_rows(
    predict_step: Step,
    params: Any,
    batch_stats: Any,
    batches: Iterator[dict[str, jax.Array]],
    *,
    num_rows: int,
    sizes: Mapping[str, int] = OUTPUT_SIZES,
) -> dict[str, NDArray[np.float32]]:
    """Runs the network over batches and puts the outputs in the order of the rows.

    Batches are those of `Predictor.predict_batches`; `sizes` are the widths of the outputs to keep,
    by name.

    Returns:
        [num_rows, size] by name: `va` [num_rows, 2], `au` [num_rows, 12] and `expr` [num_rows, 8]
        (logits) by default.

    Raises:
        ValueError: a row got no prediction.
    """
    outputs = {name: np.full((num_rows, size), np.nan, np.float32) for name, size in sizes.items()}
    done_N = np.zeros(num_rows, bool)
    results = (
        predict_step(
            params,
            batch_stats,
            {name: array for name, array in batch.items() if is_input(name)},
            batch["index"],
        )
        for batch in batches
    )
    # A batch behind: the devices work on the next one meanwhile.
    for result, _ in itertools.pairwise(itertools.chain(results, [None])):
        host = jax.device_get(result)
        valid_B = host["index"] >= 0
        index_B = host["index"][valid_B]
        for name, output in outputs.items():
            output[index_B] = host[name][valid_B]
        done_N[index_B] = True
    if not done_N.all():
        raise ValueError(f"{(~done_N).sum()} of {num_rows} rows were in no batch")
    return outputs


def output_sizes(*, va_variance: bool, sampled: bool) -> dict[str, int]:
    """Widths by name of the outputs that a prediction step gives for each example.

    A network with `va_variance` predicts `va_log_variance`; a step may sample, see `dropout`.
    """
    sizes = dict(OUTPUT_SIZES)
    if va_variance:
        sizes[VA_LOG_VARIANCE] = OUTPUT_SIZES[VA]
    if sampled:
        sizes |= {EPISTEMIC[task]: size for task, size in OUTPUT_SIZES.items()}
    return sizes


def table_columns(
    outputs: Mapping[str, NDArray[np.float32]],
    *,
    kind: str,
    temperatures: Mapping[str, float],
    divisors: Mapping[str, float],
) -> dict[str, NDArray[np.float64]]:
    """Values of a `PredictionTable`, float64, by the names of its fields.

    The outputs are [N, size] each, as `output_sizes` names them; `kind` is one of
    `uncertainty.KINDS`; `divisors` are of the logits, from `mtl_face.probabilities.divisors`.

    The standard deviation of valence and arousal is std^2 = a^2 + e^2. The aleatoric part a^2 (the
    noise of the labels, as far as training could tell) is T exp(r) where the network predicts r
    for each example (`va_log_variance`), and T for every example where T is the variance that
    `learned` or `likelihood` fitted. The T of `fixed` is a weight of the task and estimates
    nothing: without an r, a is unknown, and the standard deviations are left out. The epistemic
    part e (how far samples differ) is 0 without sampling; it has columns of its own.
    """
    wide = {name: np.asarray(value, np.float64) for name, value in outputs.items()}
    columns = as_fields(VALUE_FIELDS[VA], wide[VA])
    for task in (AU, EXPR):
        columns |= as_fields(VALUE_FIELDS[task], wide[task] / divisors[task])
    variance_N2 = None
    if VA_LOG_VARIANCE in wide:
        variance_N2 = temperatures[VA] * np.exp(wide[VA_LOG_VARIANCE])
    elif kind != FIXED:
        variance_N2 = np.full_like(wide[VA], temperatures[VA])
    if EPISTEMIC[VA] in wide:
        for task, fields in EPISTEMIC_FIELDS.items():
            columns |= as_fields(fields, wide[EPISTEMIC[task]])
        variance_N2 = None if variance_N2 is None else variance_N2 + wide[EPISTEMIC[VA]] ** 2
    if variance_N2 is not None:
        columns |= as_fields(STD_COLUMNS, np.sqrt(variance_N2))
    return columns


def _stored(crop: NDArray[np.uint8], number: int, size: int) -> NDArray[np.uint8]:
    """A crop at the stored size, resized as the training input resizes one."""
    image = np.asarray(crop)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise ImageError(
            f"crop {number} is {image.dtype} {list(image.shape)}, "
            "expected uint8 [height, width, 3]",
            remedy="give R, G, B in 0..255, as np.asarray(mtl_face.pictures.read(FILE).upright())",
        )
    if image.shape[:2] == (size, size):
        return image
    return np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR))
