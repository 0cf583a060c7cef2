"""The page's own arithmetic, run by Node.js, against what it mirrors in Python."""

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import scipy.special
from PIL import Image

from mtl_face.faces import align, mesh, search, track
from mtl_face.inference.baseline import Baselines
from mtl_face.tasks import AU_NAMES, EXPRESSION_NAMES

PAGE = Path(__file__).parents[2] / "mtl_face/serve/page"

NODE = shutil.which("node")

pytestmark = pytest.mark.skipif(NODE is None, reason="Node.js is not installed")

RANDOM = np.random.default_rng(4)


def evaluate(tmp_path, code, picture=None, **values):
    """What the function `code` of the page's modules gives for a picture and values."""
    modules = ("pixels", "align", "search", "detect", "baseline", "shot", "stream")
    (tmp_path / "values.json").write_text(json.dumps(values))
    if picture is not None:
        (tmp_path / "picture.raw").write_bytes(picture.tobytes())
        height, width = picture.shape[:2]
    script = tmp_path / "script.mjs"
    script.write_text(
        'import { readFileSync } from "node:fs";\n'
        + "".join(f'import * as {name} from "{(PAGE / name).as_uri()}.js";\n' for name in modules)
        + f"const values = JSON.parse(readFileSync({json.dumps(str(tmp_path / 'values.json'))}));\n"
        + (
            "const picture = { "
            f"width: {width}, height: {height}, data: new Uint8Array(readFileSync("
            f"{json.dumps(str(tmp_path / 'picture.raw'))})) }};\n"
            if picture is not None
            else ""
        )
        + "const plain = (key, each) => ArrayBuffer.isView(each) ? Array.from(each) : each;\n"
        + f"console.log(JSON.stringify(await ({code})(), plain));\n"
    )
    result = subprocess.run(
        [NODE, str(script)], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def pixels(found):
    return np.array(found["data"], np.uint8).reshape(found["height"], found["width"], 3)


def noise(height, width):
    """Noise, with a white and a black part, which have the largest and the smallest sums."""
    picture = RANDOM.integers(0, 256, (height, width, 3), np.uint8)
    picture[: height // 3] = 255
    picture[:, : width // 4] = 0
    return picture


def test_pictures_are_resized_to_the_bytes_of_pillow(tmp_path):
    picture = noise(197, 331)
    sizes = [(331, 197), (100, 60), (64, 38), (31, 197), (331, 40), (700, 300), (7, 5)]
    gaps = [1.4, 1.4, 1.4, 1.4, 1.4, 1.4, None]
    code = (
        "() => values.sizes.map(([w, h], at) => "
        "pixels.resized(picture, w, h, values.gaps[at] ?? undefined))"
    )
    found = evaluate(tmp_path, code, picture, sizes=sizes, gaps=gaps)
    for size, gap, each in zip(sizes, gaps, found, strict=True):
        expected = Image.fromarray(picture).resize(
            size, Image.Resampling.BILINEAR, reducing_gap=gap
        )
        np.testing.assert_array_equal(pixels(each), np.asarray(expected), err_msg=str(size))


def test_blocks_have_the_means_of_pillow(tmp_path):
    picture = noise(29, 41)
    factors = [(2, 2), (3, 3), (5, 5), (1, 4), (7, 2), (6, 11), (8, 8)]
    code = "() => values.factors.map((factor) => pixels.reduced(picture, ...factor))"
    found = evaluate(tmp_path, code, picture, factors=factors)
    for factor, each in zip(factors, found, strict=True):
        expected = np.asarray(Image.fromarray(picture).reduce(factor))
        np.testing.assert_array_equal(pixels(each), expected, err_msg=str(factor))


def test_cuts_are_those_of_align(tmp_path):
    """Crops to a grey level in a pixel of a thousand: another order of sums may cross an integer.

    What the mesh network looks at is not rounded; the larger squares shrink the picture by 3 and 5.
    """
    picture = noise(120, 160)
    places = [((80.0, 60.0), 70.0, (1.0, 0.2)), ((5.0, 100.0), 150.0, (0.3, -1.0)),
              ((90.0, 50.0), 350.0, (1.0, 0.3)), ((60.0, 90.0), 640.0, (-1.0, 0.0)),
              ((90.0, 50.0), 1001.0, (-1.0, 0.1)), ((-900.0, 50.0), 300.0, (1.0, 0.0))]  # fmt: skip
    matrices = [mesh.upright(np.array(c), side, np.array(eyes)) for c, side, eyes in places]
    maps = evaluate(tmp_path, "() => values.places.map((p) => align.upright(...p))", places=places)
    np.testing.assert_allclose(maps, matrices, atol=1e-9)
    code = """() => values.maps.map((map) => ["warped", "cut"].map(
        (how) => pixels[how](picture, align.inverted(map), 192)))"""
    found = evaluate(tmp_path, code, picture, maps=np.array(matrices).tolist())
    for matrix, (warped, cut) in zip(matrices, found, strict=True):
        expected = np.asarray(align.warp(Image.fromarray(picture), matrix, 192)).astype(int)
        assert np.abs(pixels(warped) - expected).max() <= 1
        assert np.mean(pixels(warped) != expected) < 1e-3
        expected = align.cut(Image.fromarray(picture), matrix, 192)
        np.testing.assert_allclose(np.reshape(cut, (192, 192, 3)), expected, atol=1e-4)


def test_landmarks_are_brought_to_the_template(tmp_path):
    landmarks = align.TEMPLATE_L2 @ [[1.7, 0.4], [-0.4, 1.7]] + RANDOM.normal(0, 3, (5, 2)) + 200
    code = "() => align.similarity(values.landmarks, align.TEMPLATE)"
    found = evaluate(tmp_path, code, landmarks=landmarks.tolist())
    expected = align.similarity(landmarks, align.TEMPLATE_L2)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)
    mesh_V3 = RANDOM.normal(200, 50, (468, 3)).astype(np.float32)
    code = "() => align.around(Float32Array.from(values.mesh))"
    found = evaluate(tmp_path, code, mesh=mesh_V3.ravel().tolist())
    np.testing.assert_allclose(found, mesh.around(mesh_V3), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("size", "min_face"), [((640, 480), None), ((1000, 333), 40.0), ((90, 260), 40.0)]
)
def test_tiles_are_those_of_the_search(tmp_path, size, min_face):
    picture = noise(size[1], size[0])
    expected = list(search.tiles_of(Image.fromarray(picture), min_face))
    code = "() => [...search.tilesOf(picture, values.face)]"
    found = evaluate(tmp_path, code, picture, face=min_face)
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(pixels(one["picture"]), other.pixels)
        for part, own in zip(one["parts"], other.parts, strict=True):
            for name in ("place", "size", "start", "scale"):
                np.testing.assert_allclose(part[name], getattr(own, name))


def test_candidates_are_merged_as_in_the_search(tmp_path):
    corner = RANDOM.uniform(0, 60, (30, 2))
    box_F4 = np.concatenate([corner, corner + RANDOM.uniform(15, 40, (30, 2))], axis=1)
    point_FK2, score_F = RANDOM.uniform(0, 90, (30, 6, 2)), RANDOM.uniform(0.4, 1, 30)
    expected = search.suppress(score_F, box_F4, point_FK2)
    assert 1 < len(expected) < 30
    given = [
        {"score": score, "box": box, "points": points}
        for score, box, points in zip(
            score_F.tolist(), box_F4.tolist(), point_FK2.reshape(30, 12).tolist(), strict=True
        )
    ]
    found = evaluate(tmp_path, "() => search.suppress(values.given)", given=given)
    assert len(found) == len(expected)
    for one, (box_4, point_K2) in zip(found, expected, strict=True):
        np.testing.assert_allclose(one["box"], box_4)
        np.testing.assert_allclose(one["points"], point_K2.ravel())


def test_points_at_rest_are_learned_as_of_a_stream(tmp_path):
    points = RANDOM.normal(0, 0.05, (7, 468, 3)).astype(np.float32)
    person, neutral = [1, 1, 2, 1, 2, 3, 2], [0.9, 0.05, 0.001, 0.4, 0.002, float("nan"), 0.0]
    code = """() => {
        const baselines = new baseline.Baselines();
        values.points.forEach((own, at) =>
            baselines.add(values.person[at], Float32Array.from(own), values.neutral[at] ?? NaN));
        return [1, 2, 3, 4].map((person) => baselines.known(person));
    }"""
    given = {"points": points.reshape(7, -1).tolist(), "person": person}
    given["neutral"] = [None if np.isnan(each) else each for each in neutral]
    found = evaluate(tmp_path, code, **given)
    expected = Baselines()
    expected.add(np.array(person), points, np.array(neutral))
    point_NV3, share_N = expected.known(np.arange(1, 5))
    np.testing.assert_allclose([each["share"] for each in found], share_N, rtol=1e-9)
    assert (share_N > 0).tolist() == [True, False, False, False]
    np.testing.assert_allclose(found[0]["points"], point_NV3[0].ravel(), atol=1e-7)


def test_answers_are_blended_as_logits(tmp_path):
    """Also of a calibrated file: its temperatures and the constant of a softmax do not matter."""
    share, threshold, bias = 0.7, RANDOM.normal(0, 1, 12), RANDOM.normal(0, 1, 8)
    au_2A, expression_2E = RANDOM.normal(0, 2, (2, 12)), RANDOM.normal(0, 2, (2, 8))
    va_22, std_22 = RANDOM.uniform(-1, 1, (2, 2)), RANDOM.uniform(0.1, 1, (2, 2))
    given = [
        {
            "valence_arousal": va.tolist(),
            "valence_arousal_std": std.tolist(),
            "au_probability": scipy.special.expit(au).tolist(),
            "expression_probability": scipy.special.softmax(expression).tolist(),
        }
        for va, std, au, expression in zip(va_22, std_22, au_2A, expression_2E, strict=True)
    ]
    decisions = {
        "au_thresholds": dict(zip(AU_NAMES, threshold.tolist(), strict=True)),
        "expression_biases": dict(zip(EXPRESSION_NAMES, bias.tolist(), strict=True)),
    }
    code = "() => baseline.blended(...values.given, values.share, values.decisions)"
    found = evaluate(tmp_path, code, given=given, share=share, decisions=decisions)
    au_A, expression_E = (np.array([1 - share, share]) @ each for each in (au_2A, expression_2E))
    for name, expected in {
        "valence_arousal": np.array([1 - share, share]) @ va_22,
        "valence_arousal_std": np.array([1 - share, share]) @ std_22,
        "au_probability": scipy.special.expit(au_A),
        "au_present": au_A > threshold,
        "expression_probability": scipy.special.softmax(expression_E),
        "expression": [(expression_E + bias).argmax()],
    }.items():
        np.testing.assert_allclose(found[name], expected, rtol=1e-6, err_msg=name)


def test_cuts_between_frames(tmp_path):
    picture = noise(333, 517)
    found = evaluate(tmp_path, "() => shot.view(picture)", picture)
    np.testing.assert_allclose(found, track._view(Image.fromarray(picture)), atol=1.01)
    views = RANDOM.normal(0, 30, (6, 144))
    views[1] = views[0] + RANDOM.normal(0, 20, 144)
    views[5] = 0
    code = "() => values.views.map((view) => shot.isCut(values.views[0], view))"
    found = evaluate(tmp_path, code, views=views.tolist())
    expected = [track._correlation(views[0], view) < track._SAME_SHOT for view in views]
    assert found == expected == [False, False, True, True, True, False]


def test_a_thread_that_fails_leaves_nobody_waiting(tmp_path):
    code = """async () => {
      const listeners = {};
      globalThis.Worker = class {
        addEventListener(kind, listener) { listeners[kind] = listener; }
        postMessage({ id, task }) {
          const answers = task === "start" || values.photos[id] === "answered";
          if (answers) queueMicrotask(() => listeners.message({ data: { id, answer: task } }));
        }
      };
      const page = await import(values.module);
      await page.start({});
      const photos = [page.photo({ name: "a.jpg" }), page.photo({ name: "b.jpg" })];
      await photos[1];
      listeners.error({ message: "out of memory" });
      listeners.message({ data: { id: 2, answer: "late" } });
      const ends = await Promise.allSettled(photos);
      return ends.map(({ value, reason }) => value ?? reason.message);
    }"""
    module = (PAGE / "in_page.js").as_uri()
    found = evaluate(tmp_path, code, module=module, photos={"3": "answered"})
    assert found == ["out of memory", "photo"]
