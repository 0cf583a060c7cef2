"""A network of NumPy that does what the card of an export says, and knows nothing else.

Run by itself it reads, in each of the folders given, `model.safetensors` (the lines of
docs/export.md define `card` and `arrays`) and `inputs.npz`, and writes `outputs.npz`.
"""

import itertools
import math
import sys

import numpy as np

_erf = np.vectorize(math.erf, otypes=[float])


def predict(card, arrays, inputs):
    """Outputs by name, float64 [N, size], of the network that a card states.

    `inputs` are arrays by name: `image` [N, S, S, 3]; `points` and `baseline` [N, V, 3].
    """
    return Network(card["network"], arrays, inputs).outputs()


def points_of_meshes(card, mesh_NV3):
    """What `card["points"]` says a network takes of the points of faces, in any unit."""
    stated = card["points"]
    assert "least squares" in stated["normalisation"]
    mean_V3 = np.array(stated["mean_face"])
    found = []
    for mesh_V3 in mesh_NV3:
        centred_V3 = mesh_V3 - mesh_V3.mean(axis=0)
        target_V3 = mean_V3 - mean_V3.mean(axis=0)
        u, s, vt = np.linalg.svd(centred_V3.T @ target_V3)
        sign = np.array([1, 1, np.linalg.det(u @ vt)])
        scale = (s * sign).sum() / (centred_V3**2).sum()
        found.append(scale * centred_V3 @ (u * sign) @ vt + mean_V3.mean(axis=0) - mean_V3)
    return np.array(found)


class Network:
    def __init__(self, stated, arrays, inputs):
        self.stated = stated
        self.arrays = {name: array.astype(float) for name, array in arrays.items()}
        self.kept = {}
        self.inputs = {name: np.asarray(array, float) for name, array in inputs.items()}

    def outputs(self):
        stated = self.stated
        tokens = [
            self.run(stated[name], self.inputs[name], None) for name in stated["encoder_input"]
        ]
        encoded = self.run(stated["encoder"], np.concatenate(tokens, axis=1), None)
        decoded = self.run(stated["decoder"], encoded, encoded)
        found = {}
        for head in stated["heads"].values():
            token = decoded[:, head["token"]] if "token" in head else None
            x = self.run(head["layers"], token, None)
            found |= {name: x[:, channels] for name, channels in head["outputs"].items()}
        return found

    def run(self, layers, x, encoded):
        self.encoded = encoded
        for layer in layers:
            values = {name: value for name, value in layer.items() if name != "layer"}
            x = getattr(self, layer["layer"])(x, **values)
        return x

    def array(self, name, kind="params"):
        return self.arrays[f"{kind}/{name}"]

    def resize(self, x, size):
        for axis in (1, 2):
            stored = x.shape[axis]
            place = np.clip((np.arange(size) + 0.5) * stored / size - 0.5, 0, stored - 1)
            low = np.floor(place).astype(int)
            share = (place - low).reshape([-1 if each == axis else 1 for each in range(4)])
            high = np.minimum(low + 1, stored - 1)
            x = x.take(low, axis) * (1 - share) + x.take(high, axis) * share
        return x

    def normalise(self, x, mean, std):
        return (x - mean) / std

    def windows(self, x, size, stride, padding, fill):
        pads = ((0, 0), tuple(padding), tuple(padding), (0, 0))
        x = np.pad(x, pads, constant_values=fill)
        found = np.lib.stride_tricks.sliding_window_view(x, size, axis=(1, 2))
        return found[:, ::stride, ::stride]  # [N, h, w, channels, *size]

    def convolution(self, x, name, stride, padding, groups):
        kernel = self.array(f"{name}/kernel")
        seen = self.windows(x, kernel.shape[:2], stride, padding, 0)
        if groups == 1:
            x = np.tensordot(seen, kernel, ((4, 5, 3), (0, 1, 2)))
        else:
            assert groups == kernel.shape[3] == x.shape[3]
            x = np.einsum("nhwcij,ijc->nhwc", seen, kernel[:, :, 0])
        return self.with_bias(x, name)

    def batch_norm(self, x, name, epsilon):
        mean, var = (self.array(f"{name}/{each}", "batch_stats") for each in ("mean", "var"))
        scale, bias = (self.array(f"{name}/{each}") for each in ("scale", "bias"))
        return scale * (x - mean) / np.sqrt(var + epsilon) + bias

    def features(self, x, of):
        self.kept[of] = x
        return x

    def normalised_features(self, x, of, epsilon):
        assert x is None
        found = []
        for name in of:
            x = self.kept[name]
            x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + epsilon)
            found.append(x.reshape(len(x), -1))
        return np.concatenate(found, axis=1)

    def relu(self, x):
        return np.maximum(x, 0)

    def clip(self, x, minimum, maximum):
        return np.clip(x, minimum, maximum)

    def max_pool(self, x, window, stride, padding):
        return self.windows(x, (window, window), stride, padding, -np.inf).max(axis=(4, 5))

    def residual(self, x, branch, shortcut):
        encoded = self.encoded
        return self.run(branch, x, encoded) + self.run(shortcut, x, encoded)

    def patches(self, x, order):
        self.grid = x.shape[1:3]
        axes = [1 + ["row", "column"].index(each) for each in order]
        return x.transpose(0, *axes, 3).reshape(len(x), -1, x.shape[3])

    def dense(self, x, name):
        return self.with_bias(x @ self.array(f"{name}/kernel"), name)

    def with_bias(self, x, name):
        bias = f"{name}/bias"
        return x + self.array(bias) if f"params/{bias}" in self.arrays else x

    def add(self, x, name):
        return x + self.array(name)

    def scale(self, x, name):
        return x * self.array(name)

    def add_code(self, x, parts, longest_wave, first, last):
        rows, columns = self.grid
        counts = {
            "row": np.repeat(np.arange(rows), columns),
            "column": np.tile(np.arange(columns), rows),
        }
        functions = {"sin": np.sin, "cos": np.cos}
        codes = []
        for part in parts:
            half = part["channels"] // 2
            for c in range(part["channels"]):
                angle = counts[part["counts"]] / longest_wave ** ((c % half) / half)
                codes.append(functions[first if c < half else last](angle))
        return x + np.stack(codes, axis=-1)

    def tokens_before(self, x, names):
        ahead = np.concatenate([self.array(name) for name in names])
        return np.concatenate([np.repeat(ahead[None], len(x), axis=0), x], axis=1)

    def without_first(self, x, count):
        return x[:, count:]

    def gated(self, x, gate, branch):
        return self.run(gate, x, None) * self.run(branch, x, None)

    def silu(self, x):
        return x / (1 + np.exp(-x))

    def quick_gelu(self, x, slope):
        return x / (1 + np.exp(-slope * x))

    def gelu_tanh(self, x):
        return x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))) / 2

    def global_response_norm(self, x, name, epsilon):
        norm = np.sqrt((x**2).sum(axis=(1, 2), keepdims=True))
        ratio = norm / (norm.mean(axis=-1, keepdims=True) + epsilon)
        return x + self.array(f"{name}/scale") * x * ratio + self.array(f"{name}/bias")

    def turned(self, x, base, skip):
        """[N, T, heads, n]"""
        rows, columns = self.grid
        n = x.shape[-1]
        x = x.copy()
        for token in range(rows * columns):
            row, column = divmod(token, columns)
            for i in range(n // 2):
                number, count = (row, rows) if i < n // 4 else (column, columns)
                place = (2 * number + 1) / count - 1
                a = 2 * np.pi * place / base ** (4 * (i % (n // 4)) / n)
                one = x[:, skip + token, :, i].copy()
                other = x[:, skip + token, :, i + n // 2].copy()
                x[:, skip + token, :, i] = one * np.cos(a) - other * np.sin(a)
                x[:, skip + token, :, i + n // 2] = other * np.cos(a) + one * np.sin(a)
        return x

    def position_code(self, x, parts, longest_wave, even, odd):
        rows, columns = self.grid
        counts = {
            "row": np.repeat(np.arange(rows), columns),
            "column": np.tile(np.arange(columns), rows),
            "patch": np.arange(rows * columns),
        }
        functions = {"sin": np.sin, "cos": np.cos}
        codes = []
        for part in parts:
            for c in range(part["channels"]):
                wave = longest_wave ** ((c - c % 2) / part["channels"])
                codes.append(functions[odd if c % 2 else even](counts[part["counts"]] / wave))
        return x + np.stack(codes, axis=-1)

    def point_tokens(self, x, name, inputs, values, unit, regions):
        points, baseline = (self.inputs[each] for each in inputs)
        known = (baseline != 0).any(axis=(1, 2)).astype(float)[:, None, None]
        sources = {"points": points, "change": known * (points - baseline)}
        seen = np.concatenate([sources[each] for each in values], axis=-1)[:, regions] / unit
        seen = seen.reshape(*seen.shape[:2], -1)
        tokens = np.einsum("ngx,gxd->ngd", seen, self.array(f"{name}/kernel"))
        return tokens + self.array(f"{name}/position") + known * self.array(f"{name}/known")

    def attention(self, x, name, memory, heads, scale, rotary=None):
        def parts(y, which):
            y = self.dense(y, f"{name}/{which}")
            return y.reshape(*y.shape[:2], heads, -1)

        memory = {"self": x, "encoder": self.encoded}[memory]
        query, key, value = parts(x, "query"), parts(memory, "key"), parts(memory, "value")
        if rotary:
            query, key = self.turned(query, **rotary), self.turned(key, **rotary)
        score = scale * np.einsum("nqhk,nmhk->nhqm", query, key)
        weight = np.exp(score - score.max(axis=-1, keepdims=True))
        weight /= weight.sum(axis=-1, keepdims=True)
        answer = np.einsum("nhqm,nmhk->nqhk", weight, value).reshape(x.shape)
        return self.dense(answer, f"{name}/out")

    def layer_norm(self, x, name, epsilon):
        x = x - x.mean(axis=-1, keepdims=True)
        x = x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + epsilon)
        return x * self.array(f"{name}/scale") + self.array(f"{name}/bias")

    def gelu(self, x):
        return x * (1 + _erf(x / math.sqrt(2))) / 2

    def tokens(self, x, name):
        return np.repeat(self.array(name)[None], len(x), axis=0)

    def bound(self, x, channels, limit):
        x = x.copy()
        x[:, channels] = limit * np.tanh(x[:, channels] / limit)
        return x


def over_time(stated, arrays, inputs):
    """Answers of each window's own rows, [rows, outputs], by `network.over_time` of a card."""
    network = Network(None, arrays, {})
    kind = getattr(OverTime, stated["kind"])
    found = []
    for window, gap in enumerate(inputs["gaps"]):
        rows = gap >= 0
        tokens = inputs["tokens"][window, rows].astype(float)
        answers = [inputs[f"answer_{name}"][window, rows] for name in stated["answers"]]
        one = OverTime(network, stated)
        tokens = one.norm(tokens, "token_norm").reshape(len(tokens), -1)
        x = np.concatenate([tokens, *answers, np.log(1 + gap[rows])[:, None]], axis=1)
        x = kind(one, network.gelu_tanh(network.dense(x, "read")), np.cumsum(gap[rows]))
        x = network.dense(one.norm(x, "final_norm"), "correction")
        found.append(np.concatenate(answers, axis=1) + x)
    return found


class OverTime:
    """The layers over the rows of one window, [rows, channels]."""

    def __init__(self, network, stated):
        self.network, self.stated = network, stated
        self.numbers = range(1, stated["layers"] + 1)

    def norm(self, x, name):
        return self.network.layer_norm(x, name, self.stated["epsilon"])

    def gru(self, x, frames):
        units = (f"GRUCell_{number}" for number in itertools.count())
        for layer in self.numbers:
            given = self.norm(x, f"norm{layer}")
            sides = [self.unit(given, next(units))]
            if not self.stated["causal"]:
                sides.append(self.unit(given[::-1], next(units))[::-1])
            x = x + self.network.dense(np.concatenate(sides, axis=1), f"join{layer}")
        return x

    def unit(self, x, name):
        def sigmoid(value):
            return 1 / (1 + np.exp(-value))

        h, found = np.zeros(self.stated["width"]), []
        for row in x:
            part = {
                each: self.network.dense(row if each[0] == "i" else h, f"{name}/{each}")
                for each in ("ir", "iz", "in", "hr", "hz", "hn")
            }
            r, z = sigmoid(part["ir"] + part["hr"]), sigmoid(part["iz"] + part["hz"])
            h = (1 - z) * np.tanh(part["in"] + r * part["hn"]) + z * h
            found.append(h)
        return np.array(found)

    def convolution(self, x, frames):
        taps = self.stated["kernel"]
        own = taps - 1 if self.stated["causal"] else taps // 2
        for layer in self.numbers:
            for dilation in self.stated["dilations"]:
                name = f"convolution{layer}_{dilation}"
                given, branch = self.norm(x, f"norm{layer}_{dilation}"), np.zeros_like(x)
                for tap, kernel in enumerate(self.network.array(f"{name}/kernel")):
                    for row in range(len(x)):
                        other = row + (tap - own) * dilation
                        if 0 <= other < len(x):
                            branch[row] += given[other] @ kernel
                x = x + self.network.gelu_tanh(branch + self.network.array(f"{name}/bias"))
        return x

    def attention(self, x, frames):
        network, channels = self.network, x.shape[1]
        angle = self.stated["longest_wave"] ** (-np.arange(0, channels, 2) / channels)
        angle = frames[:, None] * angle
        x = x + np.concatenate([np.sin(angle), np.cos(angle)], axis=1)
        for layer in self.numbers:
            given, name = self.norm(x, f"attention_norm{layer}"), f"attention{layer}"
            query, key, value = (
                np.einsum("ri,ihn->rhn", given, network.array(f"{name}/{part}/kernel"))
                + network.array(f"{name}/{part}/bias")
                for part in ("query", "key", "value")
            )
            score = np.einsum("qhn,rhn->hqr", query, key) / math.sqrt(query.shape[-1])
            if self.stated["causal"]:
                score[:, np.triu(np.ones(score.shape[1:], bool), 1)] = -np.inf
            weight = np.exp(score - score.max(axis=-1, keepdims=True))
            weight /= weight.sum(axis=-1, keepdims=True)
            answer = np.einsum("hqr,rhn->qhn", weight, value)
            x = x + np.einsum("qhn,hno->qo", answer, network.array(f"{name}/out/kernel"))
            x = x + network.array(f"{name}/out/bias")
            hidden = network.dense(self.norm(x, f"mlp_norm{layer}"), f"mlp_hidden{layer}")
            x = x + network.dense(network.gelu_tanh(hidden), f"mlp_out{layer}")
        return x


if __name__ == "__main__":
    import os

    lines, *folders = sys.argv[1:]
    for folder in folders:
        os.chdir(folder)
        found = {}
        exec(lines, found)
        with np.load("inputs.npz") as inputs:
            np.savez("outputs.npz", **predict(found["card"], found["arrays"], dict(inputs)))
