"""How a network computes, as a card states it: every layer in its order, from crop to outputs.

With this list, the arrays and NumPy, predictions are rebuilt without this program. The numbers come
from the modules of the network. No heavy library is imported.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from mtl_face.config import Config, ModelConfig
from mtl_face.inputs import BASELINE, IMAGE, POINTS
from mtl_face.model.conventions import (
    CROSS,
    DECODER_ATTENTIONS,
    DILATIONS,
    KERNEL,
    LAYER_NORM_EPSILON,
    LONGEST_WAVE,
    MAX_LOG_RATIO,
    POINT_VALUES,
    TEMPORAL_HEADS,
    TOKEN_ORDER,
    attention_scale,
    has_perceptron,
    position_parts,
)
from mtl_face.model.regions import REGIONS
from mtl_face.tasks import OUTPUT_SIZES, TASKS, VA, VA_LOG_VARIANCE
from mtl_face.weights import card_backbones
from mtl_face.weights.card_backbones import Layers, layer_norm

_WORDS = "words"

_MEANINGS = {
    "arrays": "those of a layer are params/NAME/..., with its name for NAME, and mean and var of a "
    "batch norm batch_stats/NAME/...; compute_dtype is that of activations; norms, softmax and the "
    "last layer of a head are float32",
    "parts": "image makes tokens of a crop [height, width, channels], points of face points and "
    "those of the face at rest; encoder_input joins them in its order; encoder changes them; "
    "decoder reads them; each head begins with its token, by number, of what decoder gave, or "
    "reads features. The layers of a part run in their order, each on what the last one gave",
    "resize": "to size x size, bilinear: output pixel i lies at (i + 0.5) * stored / size - 0.5 of "
    "the stored rows and columns, the edge is repeated; no antialiasing, no rounding",
    "normalise": "(x - mean) / std, of R, G, B",
    "convolution": "kernel [height, width, in, out], not flipped, each axis stepped by stride and "
    "padded with zeros by [before, after]; with groups, channel by channel with kernel [height, "
    "width, 1, channels]; plus bias where there is such an array",
    "global_response_norm": "x + scale * x * n / (m + epsilon) + bias; n is the root of the sum of "
    "squares of a channel over the places of the map, m the mean of n over the channels",
    "batch_norm": "scale * (x - mean) / sqrt(var + epsilon) + bias, all four of them arrays",
    "relu": "max(x, 0)",
    "clip": "min(max(x, minimum), maximum)",
    "max_pool": "the maximum over window x window, each axis stepped by stride and padded with "
    "minus infinity by [before, after]",
    "residual": "the layers of branch on x, plus those of shortcut on x; an empty list gives x",
    "patches": "the places of the map as a list of tokens, the last of order running fastest",
    "dense": "x @ kernel, kernel [in, out], plus bias where there is such an array",
    "add": "plus the array, by token and channel",
    "add_code": "plus, by token, codes: each of parts counts the token's row or column from 0, in "
    "as many channels as it says. Channel c of n of a part: angle = count / longest_wave ** (2 * "
    "(c mod (n / 2)) / n), of which the first half of the channels takes first, the second last",
    "tokens_before": "the rows of the arrays, in their order, as tokens before the others",
    "without_first": "without the first count of the tokens",
    "scale": "times the array, by channel",
    "gated": "the layers of gate on x, times those of branch on x",
    "silu": "x / (1 + exp(-x))",
    "quick_gelu": "x / (1 + exp(-slope * x))",
    "gelu_tanh": "x * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x ** 3))) / 2",
    "position_code": "added: each of parts codes, in as many channels as it says, what it counts "
    "from 0: the token's row, column, or number (patch). Channel c of n of a part: angle = count / "
    "longest_wave ** ((c - c % 2) / n), of which even channels take one function, odd ones another",
    "point_tokens": "known = 1 if baseline has an entry that is not 0, else 0; change = known * "
    "(points - baseline). A token a region: of its points, in their order, the values, each x, y, "
    "z, divided by unit; times its kernel [region, in, out]; plus position; plus the array known "
    "where known is 1",
    "attention": "query, key, value and out are dense: query of x, key and value of the memory, "
    "which is x itself or what encoder gave; heads are equal parts of consecutive channels. In "
    "each head softmax over the memory of scale * query . key, times value; then out of the heads "
    "side by side",
    "rotary": "of an attention: queries and keys of the tokens behind the first skip are turned. "
    "Of a head of n channels, i and i + n / 2 (x, y) become x cos(a) - y sin(a), y cos(a) + "
    "x sin(a); a = 2 pi place / base ** (4 j / n); i below n / 4 takes the place of the token's "
    "row and j = i, others the column's and j = i - n / 4; place = (2 number + 1) / count - 1 of "
    "the rows or columns",
    "layer_norm": "scale * (x - m) / sqrt(v + epsilon) + bias; m and v (biased) over the channels",
    "gelu": "x * (1 + erf(x / sqrt(2))) / 2",
    "tokens": "the array itself, whatever the input is",
    "features": "x stays as it is, and a head that names of reads it",
    "normalised_features": "of each of the features: (x - m) / sqrt(v + epsilon), m and v (biased) "
    "over the channels; then the channels of one token after the other, and all features side by "
    "side",
    "bound": "limit * tanh(x / limit) of these channels",
    "outputs": "channels of a head's result by output; tasks, at the top of the card, names them",
}


_OVER_TIME = {
    "arrays": "those named below are params/NAME/..., float32; those of the network of frames are "
    "params/frames/... and batch_stats/frames/..., and its card is in frames",
    "frames": "of each frame of a window, tokens (task tokens; with one more the mean of the "
    "encoder's behind them; rounded to float16) and answers of the network of frames, its logits "
    "divided by its temperatures if it was trained with likelihood; gap is the number of frames "
    "since the row before, 0 of the first",
    "windows": "rows of one person or video; where causal, they begin at each multiple of half a "
    "window, and a row is answered by the earliest that holds it; else they overlap by half, the "
    "last ends with the last row, and a row is answered by the one in whose middle it lies most",
    "input": "layer norm token_norm of each token, flattened; the answers in their order; log(1 + "
    "gap); then dense read and gelu. Layers add what they make of x to x, a row a frame",
    "dense": "x @ kernel, kernel [in, out], plus bias where there is such an array",
    "layer_norm": "scale * (x - m) / sqrt(v + epsilon) + bias; m and v (biased) over the channels",
    "gelu": "x * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x ** 3))) / 2",
    "gru": "of layer 1, ...: layer norm norm1, a unit from the first row to the last and, unless "
    "causal, one from the last to the first, side by side, dense join1. Units are GRUCell_0, "
    "GRUCell_1, ... in the order of their use. A unit begins with h = 0; of its dense parts ir, iz "
    "and in read x, hr, hz and hn read h: r = sigmoid(ir + hr), z = sigmoid(iz + hz), n = tanh(in "
    "+ r * hn), h = (1 - z) * n + z * h",
    "convolution": "of layer 1, ... and each of dilations: layer norm norm1_2 (layer_dilation), "
    "convolution1_2, gelu. Its kernel [taps, in, out] is not flipped, neighbouring taps are "
    "dilation rows apart, with zeros outside; the middle tap is the row itself, the last if causal",
    "attention": "to x is added, by frame number since the first row, sin (first half of the "
    "channels) and cos (second) of number / longest_wave ** (2 i / channels), i from 0 in each "
    "half. Of layer 1, ...: layer norm attention_norm1, attention1, added; layer norm mlp_norm1, "
    "dense mlp_hidden1, gelu, dense mlp_out1. query, key and value have a kernel [in, heads, n] "
    "and bias [heads, n]; in each head softmax over the rows, if causal those up to its own, of "
    "query . key / sqrt(n), times value; then out, kernel [heads, n, out]",
    "output": "layer norm final_norm, dense correction: added to the answers in their order; the "
    "log variances are clipped to -limit .. limit",
}


def statement(model: ModelConfig) -> dict[str, Any]:
    """The layers of a network as JSON values.

    `image` and `points` are lists of layers, None for an input that the network does not take; then
    `encoder_input`, `encoder`, `decoder`, and `heads` by task. `words` says what each layer is.
    """
    encoder = [
        layer
        for number in range(1, model.encoder_layers + 1)
        for layer in _attention(model, f"encoder/layer{number}", memory="self", perceptron=True)
    ]
    decoder: Layers = [{"layer": "tokens", "name": "decoder/tokens"}]
    for module in range(1, model.decoder_modules + 1):
        for kind in DECODER_ATTENTIONS:
            decoder += _attention(
                model,
                f"decoder/module{module}_{kind}",
                memory="encoder" if kind == CROSS else "self",
                perceptron=has_perceptron(kind, model.decoder_mlp),
            )
    if model.norm == "pre":
        encoder.append(layer_norm("encoder/final_norm", LAYER_NORM_EPSILON))
        decoder.append(layer_norm("decoder/final_norm", LAYER_NORM_EPSILON))
    values = {
        "compute_dtype": model.compute_dtype,
        IMAGE: _image(model) if IMAGE in model.inputs else None,
        POINTS: _points(model) if POINTS in model.inputs else None,
        "encoder_input": [name for name in TOKEN_ORDER if name in model.inputs],
        "encoder": encoder,
        "decoder": decoder,
        "heads": {task: _head(model, task) for task in TASKS} | _variance_head(model),
        _WORDS: _MEANINGS,
    }
    return json.loads(json.dumps(values))  # tuples are lists


def over_time(config: Config) -> dict[str, Any]:
    """How a network over time computes, as JSON values; its frames' network has another card.

    `words` says what the other entries are.
    """
    temporal = config.temporal
    sizes = dict(OUTPUT_SIZES)
    if config.model.predicts_variance:
        sizes[VA_LOG_VARIANCE] = OUTPUT_SIZES[VA]
    values = {
        "over_time": {
            "kind": temporal.kind,
            "causal": temporal.causal,
            "window": temporal.window,
            "layers": temporal.layers,
            "width": temporal.width,
            "tokens": [len(TASKS) + temporal.reads_patches, config.model.embed_dim],
            "answers": sizes,
            "limit": MAX_LOG_RATIO,
            "epsilon": LAYER_NORM_EPSILON,
            "kernel": KERNEL,
            "dilations": DILATIONS,
            "heads": TEMPORAL_HEADS,
            "longest_wave": LONGEST_WAVE,
        },
        _WORDS: _OVER_TIME,
    }
    return json.loads(json.dumps(values))


def differences(stated: Any, config: Config) -> list[str]:
    """Where a card's statement says otherwise than this version computes, a line each.

    Its words count for nothing, and neither does what it leaves out of a layer.
    """
    if not isinstance(stated, Mapping):
        return [f"network is of type {type(stated).__name__}"]
    model = config.model
    if config.is_over_time:
        facts = {name: value for name, value in stated.items() if name != _WORDS}
        return list(_differences(facts, over_time(config), "network"))
    least = model.backbone.num_blocks if IMAGE in model.inputs else 0
    least += model.encoder_layers + model.decoder_modules + model.head_layers
    # A network of any size can be claimed; that of the statement is as small as the card.
    if _num_layers(stated) < least or model.embed_dim >= 2**31:
        return ["network states fewer layers than its settings make"]
    facts = {name: value for name, value in stated.items() if name != _WORDS}
    return list(_differences(facts, statement(model), "network"))


def _image(model: ModelConfig) -> Layers:
    """From a stored crop to tokens."""
    return [
        {"layer": "resize", "size": model.input_size},
        {"layer": "normalise", "mean": model.input_mean, "std": model.input_std},
        *card_backbones.LAYERS[model.backbone.kind](model),
        *_features(model, IMAGE),
        {"layer": "dense", "name": "projection"},
        {
            "layer": "position_code",
            "parts": [
                {"counts": counted, "channels": channels}
                for counted, channels in position_parts(model.position, model.embed_dim)
            ],
            "longest_wave": LONGEST_WAVE,
            "even": "sin",
            "odd": "cos",
        },
    ]


def _points(model: ModelConfig) -> Layers:
    """From face points to tokens."""
    return [
        {
            "layer": "point_tokens",
            "name": "points",
            "inputs": [POINTS, BASELINE],
            "values": POINT_VALUES,
            "unit": model.points.unit,
            "regions": REGIONS.tolist(),
        },
        *_features(model, POINTS),
    ]


def _features(model: ModelConfig, name: str) -> Layers:
    """What `heads.VarianceHead` reads."""
    return [{"layer": "features", "of": name}] if model.va_variance == "from_features" else []


def _attention(model: ModelConfig, name: str, *, memory: str, perceptron: bool) -> Layers:
    """The layers of `transformer.AttentionLayer`: each branch has its norm before or behind."""
    attention = {
        "layer": "attention",
        "name": f"{name}/attention",
        "memory": memory,
        "heads": model.num_heads,
        "scale": attention_scale(model.embed_dim, model.num_heads),
    }
    dense: Layers = [
        {"layer": "dense", "name": f"{name}/mlp_hidden"},
        {"layer": "gelu"},
        {"layer": "dense", "name": f"{name}/mlp_out"},
    ]
    branches: list[tuple[str, Layers]] = [("attention_norm", [attention])]
    if perceptron:
        branches.append(("mlp_norm", dense))
    layers: Layers = []
    for norm_name, branch in branches:
        norm = [layer_norm(f"{name}/{norm_name}", LAYER_NORM_EPSILON)]
        before, behind = (norm, []) if model.norm == "pre" else ([], norm)
        layers.append({"layer": "residual", "branch": [*before, *branch], "shortcut": []})
        layers += behind
    return layers


def _head(model: ModelConfig, task: str) -> dict[str, Any]:
    """The layers of `heads.TaskHead`, and the outputs of the network."""
    layers: Layers = []
    for number in range(1, model.head_layers + 1):
        layers += [{"layer": "dense", "name": f"head_{task}/dense{number}"}, {"layer": "relu"}]
    layers.pop()
    size = OUTPUT_SIZES[task]
    outputs = {task: list(range(size))}
    if task == VA and model.va_variance == "per_example":
        outputs[VA_LOG_VARIANCE] = list(range(size, 2 * size))
        layers.append(
            {"layer": "bound", "channels": outputs[VA_LOG_VARIANCE], "limit": MAX_LOG_RATIO}
        )
    return {"token": TASKS.index(task), "layers": layers, "outputs": outputs}


def _variance_head(model: ModelConfig) -> dict[str, Any]:
    """The layers of `heads.VarianceHead`."""
    if model.va_variance != "from_features":
        return {}
    names = [name for name in TOKEN_ORDER if name in model.inputs]
    channels = list(range(OUTPUT_SIZES[VA]))
    layers = [
        {"layer": "normalised_features", "of": names, "epsilon": LAYER_NORM_EPSILON},
        {"layer": "dense", "name": "head_va_variance/dense1"},
        {"layer": "bound", "channels": channels, "limit": MAX_LOG_RATIO},
    ]
    return {"va_variance": {"layers": layers, "outputs": {VA_LOG_VARIANCE: channels}}}


def _num_layers(value: Any) -> int:
    """Layers in a statement, those within others too."""
    count, values = 0, [value]
    while values:
        value = values.pop()
        if isinstance(value, Mapping):
            count += "layer" in value
            values += value.values()
        elif isinstance(value, list):
            values += value
    return count


def _differences(stated: Any, own: Any, place: str) -> Iterator[str]:
    if isinstance(stated, Mapping) and isinstance(own, Mapping):
        for name, value in stated.items():
            if name in own:
                yield from _differences(value, own[name], f"{place}.{name}")
            else:
                yield f"{place} has {name!r:.40}, which this version does not know"
    elif isinstance(stated, list) and isinstance(own, list):
        if len(stated) != len(own):
            yield f"{place} has {len(stated)} entries, here {len(own)}"
            return
        for number, (theirs, ours) in enumerate(zip(stated, own, strict=True)):
            yield from _differences(theirs, ours, f"{place}[{number}]")
    elif stated != own:
        yield f"{place} is {stated!r:.60}, here {own!r:.60}"
