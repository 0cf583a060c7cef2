"""The benchmark of prediction: the networks that are compared are one, and every part has times."""

import numpy as np
import pytest
import small_experiment
import small_videos
from PIL import Image

import mtl_face
from benchmarks import comparison, predict

PARTS = [
    "decoding",
    "finding (BlazeFace)",
    "mesh",
    "network",
    "pose, quality, baselines",
    "writing",
]


@pytest.mark.torch
def test_three_ways_answer_alike(tmp_path):
    pytest.importorskip("torch")
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    from benchmarks import predict_crops

    config = small_experiment.write_config(tmp_path)
    settings = mtl_face.load_config(config, **{"data.root": str(tmp_path)})
    groups = predict_crops.crops(settings, [1, 3], 1, tmp_path)
    assert [group.name.partition(":")[0] for group in groups] == [
        "small, batch 1",
        "small, batch 3",
    ]
    ways = {predict_crops.OURS, predict_crops.TORCH, predict_crops.ONNX}
    assert all(group.times.keys() == ways and group.reference in ways for group in groups)


@pytest.mark.torch
def test_another_network_is_noticed():
    pytest.importorskip("torch")
    pytest.importorskip("onnxruntime")
    from benchmarks import predict_crops

    own = [np.ones((2, size)) for size in (2, 12, 8)]
    other = [array.copy() for array in own]
    predict_crops.check_equal({predict_crops.OURS: own, "other": other})
    other[1][1, 3] = 1.01
    with pytest.raises(ValueError, match=r"other, au: differs by 0\.01"):
        predict_crops.check_equal({predict_crops.OURS: own, "other": other})


def test_a_video_has_times_of_all_parts(tmp_path):
    path = small_videos.write(tmp_path / "video.mp4", small_videos.two_people(9))
    wall, work = predict.video(mtl_face.load("geometry"), path, 1, tmp_path)
    assert list(wall.times) == [predict.OURS, "decoding alone"]
    assert list(work.times) == [predict.WHOLE, *PARTS]
    assert all(value > 0 for group in (wall, work) for (value,) in group.times.values())
    rows = (tmp_path / "faces.csv").read_text().splitlines()
    assert len(rows) == 1 + 2 * 9
    assert len((tmp_path / "parts.csv").read_text().splitlines()) == len(rows)


def test_shares_are_of_the_sum_of_the_parts():
    work = {predict.WHOLE: [9.0], "one": [1.0, 1.0], "two": [3.0, 3.0]}
    assert predict.shares(work) == "one 25 %, two 75 %"


@pytest.mark.usefixtures("shared_programs")
def test_stages_of_a_photo(tmp_path):
    path = tmp_path / "photo.jpg"
    Image.fromarray(small_videos.two_people(1)[0]).save(path)
    found = predict.stages("geometry", path, tmp_path / "compiled")
    assert all(seconds > 0 for seconds in found.values())
    assert len(found) == 5
    assert comparison.Group("Stages", next(iter(found)), "s", {n: [s] for n, s in found.items()})
    with pytest.raises(RuntimeError, match="absent"):
        predict.stages("geometry", tmp_path / "absent.jpg", tmp_path / "compiled")
