"""The two networks that find faces and their points, as Flax modules with the weights of MediaPipe.

BlazeFace (short range) was trained on 128 x 128, of which it gives boxes with six key points on 896
anchors; of a larger picture it gives those of each part. Face Mesh takes a 192 x 192 cut of one
face and gives 468 points and a score. Both are chains of one block. The weights are Apache-2.0;
`assets/PROVENANCE.json` names their origin, and `benchmarks/derive_face_networks.py` makes them.

`blaze_face` and `face_mesh` are pure functions of variables and pixels, to compile or to export;
`FaceNetwork` runs one of them on pictures of any number.

Dimension letters: B batch, N pictures, S side of a picture, H W height and width of a map, C
channels, A anchors (896 of 128 x 128), K key points (6), V mesh points (468).
"""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
import safetensors.numpy
from jax import lax

from mtl_face.face_table import MESH_POINTS
from mtl_face.faces.align import Floats
from mtl_face.model.convolution import CONVOLUTIONS, compiler_options, resolve_convolution

ASSETS = Path(__file__).parent / "assets"

BLAZE_FACE_SIZE = 128
"""Side of a picture that BlazeFace was trained on; it takes any multiple of 16."""

MESH_SIZE = 192

BATCH_SIZES = {"cpu": (1,)}
"""Sizes of the batches that are compiled, by platform; others have `OTHER_BATCH_SIZES`. On a CPU
larger ones take longer for each picture, since less of their maps stays in its caches."""

OTHER_BATCH_SIZES = (1, 4, 16, 64)

_GRIDS = ((8, 2), (16, 6))  # side of a cell in pixels, anchors a cell
_KEY_POINTS = 6

# Channels and stride of each block.
_FINE_BLOCKS = (
    *((24, 1), (28, 1), (32, 2), (36, 1), (42, 1)),
    *((48, 2), (56, 1), (64, 1), (72, 1), (80, 1), (88, 1)),
)
_COARSE_BLOCKS = ((96, 2), (96, 1), (96, 1), (96, 1), (96, 1))
_MESH_BLOCKS = (
    *((16, 1), (16, 1), (32, 2), (32, 1), (32, 1), (64, 2), (64, 1), (64, 1)),
    *((128, 2), (128, 1), (128, 1), (128, 2), (128, 1), (128, 1)),
)


class BlazeBlock(nn.Module):
    """A depthwise 3 x 3 and a pointwise convolution, added to the block's input.

    With stride 2 the input is added as the maxima of its 2 x 2 squares; channels that it lacks are
    zeros.

    Attributes:
        channels: of the output.
        stride: 1 or 2.
        leaky: whether values below 0 are scaled, each channel by a factor of its own (PReLU),
            instead of cut off.
        convolution: a key of `CONVOLUTIONS`.
    """

    channels: int
    stride: int
    leaky: bool
    convolution: str

    @nn.compact
    def __call__(self, map_BHWC: jax.Array) -> jax.Array:
        """From [B, H, W, C] to [B, H / stride, W / stride, channels]."""
        inputs = map_BHWC.shape[-1]
        convolve = functools.partial(_convolution, convolution=self.convolution)
        depthwise = convolve(
            inputs, (3, 3), strides=self.stride, feature_group_count=inputs, name="depthwise"
        )
        added_BHWC = convolve(self.channels, (1, 1), name="pointwise")(depthwise(map_BHWC))
        if self.stride == 2:
            map_BHWC = _maxima_of_squares(map_BHWC)
        missing = self.channels - inputs
        map_BHWC = jnp.pad(map_BHWC, ((0, 0), (0, 0), (0, 0), (0, missing)))
        return Activation(self.leaky, name="activation")(map_BHWC + added_BHWC)


class Activation(nn.Module):
    """ReLU, or PReLU with a slope for each channel."""

    leaky: bool

    @nn.compact
    def __call__(self, map_BHWC: jax.Array) -> jax.Array:
        """Of the same shape."""
        if not self.leaky:
            return nn.relu(map_BHWC)
        slope_C = self.param("slope", nn.initializers.zeros, (map_BHWC.shape[-1],))
        return jnp.maximum(map_BHWC, 0) + slope_C[None, None, None] * jnp.minimum(map_BHWC, 0)


class WholeMap(nn.Module):
    """A convolution by a kernel of the map's size, as a product for each place and their sum.

    Of one long product the sums are as large as the result, and each is rounded: of points, in
    pixels, that error was larger than those of all layers before it.
    """

    outputs: int

    @nn.compact
    def __call__(self, map_BHWC: jax.Array) -> jax.Array:
        """From [B, H, W, C] to [B, outputs]."""
        batch, height, width, channels = map_BHWC.shape
        shape = (height * width * channels, self.outputs)
        kernel_DO = self.param("kernel", nn.initializers.lecun_normal(), shape)
        bias_O = self.param("bias", nn.initializers.zeros, (self.outputs,))
        flat_BD = map_BHWC.reshape(batch, -1)
        products = [
            jnp.dot(
                lax.slice_in_dim(flat_BD, start, start + channels, axis=1),
                lax.slice_in_dim(kernel_DO, start, start + channels),
                precision=lax.Precision.HIGHEST,
            )
            for start in range(0, shape[0], channels)
        ]
        return functools.reduce(jnp.add, products) + bias_O[None]


class BlazeFace(nn.Module):
    """The network that finds faces in a small picture; `convolution`: a key of `CONVOLUTIONS`."""

    convolution: str

    @nn.compact
    def __call__(self, pixel_BSS3: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Searches pictures with values in [-1, 1], float32 [B, S, S, 3].

        Returns:
            Logits of a face [B, A]; [B, A, 2 + K, 2]: centre relative to the anchor, size, and key
            points relative to the anchor, in pixels.
        """
        convolve = functools.partial(_convolution, convolution=self.convolution)
        block = functools.partial(BlazeBlock, leaky=False, convolution=self.convolution)
        map_BHWC = nn.relu(convolve(24, (5, 5), strides=2, name="stem")(pixel_BSS3))
        for number, (channels, stride) in enumerate(_FINE_BLOCKS):
            map_BHWC = block(channels, stride, name=f"block{number}")(map_BHWC)
        fine_BHWC = map_BHWC
        for number, (channels, stride) in enumerate(_COARSE_BLOCKS, start=len(_FINE_BLOCKS)):
            map_BHWC = block(channels, stride, name=f"block{number}")(map_BHWC)
        logits, offsets = [], []
        for grid_BHWC, (_, anchors), name in zip(
            (fine_BHWC, map_BHWC), _GRIDS, ("fine", "coarse"), strict=True
        ):
            batch = grid_BHWC.shape[0]
            size = 2 * (2 + _KEY_POINTS)
            logit = convolve(anchors, (1, 1), name=f"{name}_logit")(grid_BHWC)
            offset = convolve(anchors * size, (1, 1), name=f"{name}_offset")(grid_BHWC)
            logits.append(logit.reshape(batch, -1))
            offsets.append(offset.reshape(batch, -1, 2 + _KEY_POINTS, 2))
        return jnp.concatenate(logits, axis=1), jnp.concatenate(offsets, axis=1)


class FaceMesh(nn.Module):
    """The network that finds the points of one face; `convolution`: a key of `CONVOLUTIONS`."""

    convolution: str

    @nn.compact
    def __call__(self, pixel_BSS3: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Looks at cuts with values in [0, 1], float32 [B, 192, 192, 3].

        Returns:
            Logit that there is a face [B]; points [B, V, 3] in pixels, where (0, 0) is the corner
            of the first pixel, and depth.
        """
        convolve = functools.partial(_convolution, convolution=self.convolution)
        block = functools.partial(BlazeBlock, leaky=True, convolution=self.convolution)
        stem_BHWC = convolve(16, (3, 3), strides=2, name="stem")(pixel_BSS3)
        map_BHWC = Activation(True, name="stem_activation")(stem_BHWC)
        for number, (channels, stride) in enumerate(_MESH_BLOCKS):
            map_BHWC = block(channels, stride, name=f"block{number}")(map_BHWC)

        def head(name: str, strides: tuple[int, ...], outputs: int) -> jax.Array:
            head_BHWC = map_BHWC
            for number, stride in enumerate(strides):
                head_BHWC = block(128, stride, name=f"{name}_block{number}")(head_BHWC)
            head_BHWC = convolve(32, (1, 1), name=f"{name}_narrow")(head_BHWC)
            head_BHWC = Activation(True, name=f"{name}_narrow_activation")(head_BHWC)
            head_BHWC = block(32, 1, name=f"{name}_last_block")(head_BHWC)
            return WholeMap(outputs, name=f"{name}_output")(head_BHWC)

        logit_B = head("score", (2,), 1)[:, 0]
        return logit_B, head("points", (2, 1, 1), 3 * MESH_POINTS).reshape(-1, MESH_POINTS, 3)


def _maxima_of_squares(map_BHWC: jax.Array) -> jax.Array:
    """The 2 x 2 maximum of stride 2 in a form that XLA fuses, [B, H / 2, W / 2, C]."""
    rows_BHWC = jnp.maximum(map_BHWC[:, ::2], map_BHWC[:, 1::2])
    return jnp.maximum(rows_BHWC[:, :, ::2], rows_BHWC[:, :, 1::2])


def _convolution(
    features: int, kernel: tuple[int, int], *, convolution: str, **settings: Any
) -> Any:
    return nn.Conv(
        features,
        kernel,
        conv_general_dilated=CONVOLUTIONS[convolution],
        precision=lax.Precision.HIGHEST,  # on a GPU and a TPU, the default has fewer bits
        **settings,
    )


def blaze_face(
    variables: Any, pixel_BSS3: jax.Array, *, convolution: str = "auto"
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Searches RGB pictures, uint8 [B, S, S, 3]; S is a multiple of 16.

    Returns:
        Score [B, A] in 0..1; box [B, A, 4] as left, top, right, bottom and key points [B, A, K, 2]
        (the eyes, left of the picture first, tip of the nose, middle of the mouth, ears), both as
        shares of the picture's side.
    """
    network = BlazeFace(resolve_convolution(convolution))
    outputs: Any = network.apply(variables, pixel_BSS3 / jnp.float32(127.5) - 1)
    logit_BA, offset_BA82 = outputs
    size = pixel_BSS3.shape[1]
    offset_BA82 /= size
    anchor_A12 = jnp.asarray(anchors(size)[None, :, None], jnp.float32)
    centre_BA12 = offset_BA82[:, :, :1] + anchor_A12
    half_BA12 = offset_BA82[:, :, 1:2] / 2
    box_BA22 = jnp.concatenate([centre_BA12 - half_BA12, centre_BA12 + half_BA12], axis=2)
    points_BAK2 = offset_BA82[:, :, 2:] + anchor_A12
    return nn.sigmoid(logit_BA), box_BA22.reshape(*logit_BA.shape, 4), points_BAK2


def face_mesh(
    variables: Any, pixel_BSS3: jax.Array, *, convolution: str = "auto"
) -> tuple[jax.Array, jax.Array]:
    """Looks at RGB cuts of upright faces with about a quarter of their size around them.

    From pixels [B, 192, 192, 3] in 0..255 to the probability that there is a face, [B], and points
    [B, V, 3]: x and y in pixels of the cut, where (0, 0) is the centre of the first pixel, and
    depth in pixels, smaller where nearer.
    """
    network = FaceMesh(resolve_convolution(convolution))
    outputs: Any = network.apply(variables, pixel_BSS3 / jnp.float32(255))
    logit_B, point_BV3 = outputs
    return nn.sigmoid(logit_B), point_BV3 - jnp.asarray([[[0.5, 0.5, 0.0]]], jnp.float32)


class FaceNetwork:
    """One of the functions above on the default device, for any number of pictures and threads.

    Pictures are put together to batches of few sizes, each compiled when it is first needed.
    """

    def __init__(self, function: Callable[..., tuple[jax.Array, ...]], name: str) -> None:
        platform = jax.default_backend()
        self._sizes = BATCH_SIZES.get(platform, OTHER_BATCH_SIZES)
        self._variables = jax.device_put(variables(name))
        self._function = jax.jit(function, compiler_options=compiler_options(platform))

    def __call__(
        self, pixel_NSS3: npt.NDArray[np.uint8] | npt.NDArray[np.float32]
    ) -> tuple[npt.NDArray[np.float32], ...]:
        """The function's results for N pictures, [N, ...] each; compiled for each dtype."""
        count = len(pixel_NSS3)
        parts: list[tuple[jax.Array, ...]] = []
        start = 0
        while start < count or not parts:
            size = next((size for size in self._sizes if size >= count - start), self._sizes[-1])
            batch_BSS3: npt.NDArray[Any] = pixel_NSS3[start : start + size]
            missing = size - len(batch_BSS3)
            if missing:
                batch_BSS3 = np.pad(batch_BSS3, ((0, missing), (0, 0), (0, 0), (0, 0)))
            parts.append(self._function(self._variables, batch_BSS3))
            start += size
        fetched = [jax.device_get(part) for part in parts]
        return tuple(np.concatenate(outputs)[:count] for outputs in zip(*fetched, strict=True))


@functools.cache
def blaze_face_network() -> FaceNetwork:
    """BlazeFace, shared by all that need it in this process."""
    return FaceNetwork(blaze_face, "blaze_face")


@functools.cache
def face_mesh_network() -> FaceNetwork:
    """Face Mesh, shared by all that need it in this process."""
    return FaceNetwork(face_mesh, "face_mesh")


@functools.cache
def variables(name: str) -> dict[str, Any]:
    """The variables of a network, float32, from the file of that name in `ASSETS`."""
    flat = safetensors.numpy.load_file(ASSETS / f"{name}.safetensors")
    params = {tuple(key.split("/")): array.astype(np.float32) for key, array in flat.items()}
    return {"params": flax.traverse_util.unflatten_dict(params)}


def anchors(size: int = BLAZE_FACE_SIZE) -> Floats:
    """Centres of BlazeFace's anchors in a picture of this side, as shares of it, [A, 2]."""
    parts = []
    for pixels, repeats in _GRIDS:
        cells = size // pixels
        y, x = np.mgrid[:cells, :cells]
        centre = (np.stack([x, y], axis=-1).reshape(-1, 2) + 0.5) / cells
        parts.append(np.repeat(centre, repeats, axis=0))
    return np.concatenate(parts)
