"""Turns at the network, and a model that answers photos and streams."""

import asyncio
import threading

import numpy as np
import program_files
import pytest
import small_videos
from brightness_network import Brightness
from PIL import Image

from mtl_face.errors import ConfigError
from mtl_face.faces import align
from mtl_face.faces.video import VideoFrame
from mtl_face.run import models
from mtl_face.serve.model import Faces, Turns

BILINEAR = Image.Resampling.BILINEAR


def test_turns_come_in_the_order_of_asking_and_one_at_a_time():
    order, inside = [], []

    def work(name):
        inside.append(name)
        assert len(inside) == 1
        order.append(name)
        inside.remove(name)
        return name, threading.current_thread() is threading.main_thread()

    async def client(turns, name, count):
        return [await turns.run(work, name) for _ in range(count)]

    async def clients():
        turns = Turns()
        return await asyncio.gather(*(client(turns, name, 4) for name in "abc"))

    answers = asyncio.run(clients())
    assert answers == [[(name, False)] * 4 for name in "abc"]
    assert order == list("abc" * 4)


def test_a_turn_that_fails_is_handed_on():
    async def clients():
        turns = Turns()
        with pytest.raises(ZeroDivisionError):
            await turns.run(lambda: 1 / 0)
        return await turns.run(lambda: "next")

    assert asyncio.run(clients()) == "next"


@pytest.fixture(scope="module")
def model():
    return Faces(Brightness(), "brightness")


def test_streams_know_nothing_of_each_other(model):
    pictures = [Image.fromarray(pixels) for pixels in small_videos.two_people(2)]
    first, second = model.stream("first"), model.stream("second")
    table = first.update([VideoFrame(1, 0.0, pictures[0])])[0]
    assert table.person.tolist() == [1, 2]
    empty = Image.new("RGB", pictures[0].size)
    (table,) = second.update([VideoFrame(1, 0.0, empty)])
    assert (table.person.tolist(), table.source.tolist()) == ([0], ["second"])
    (table,) = first.update([VideoFrame(2, 0.04, pictures[1])])
    assert table.person.tolist() == [1, 2]
    assert table.source.tolist() == ["first"] * 2


def test_a_photo(model):
    table = model.photo(Image.fromarray(small_videos.two_people(1)[0]), "a.jpg")
    assert table.person.tolist() == [1, 2]
    assert np.isnan(table.time_ms).all()


def test_all_that_a_face_needs_can_be_compiled_beforehand():
    network = Brightness()
    Faces(network, "brightness").compile()
    assert network.batches == [1]


def test_a_model_of_other_crops_is_refused():
    with pytest.raises(ConfigError, match="cut in another way: size is 64, not 112"):
        Faces(Brightness(crop={**align.specification(), "size": 64}), "other")


def test_a_calibration_inside_of_a_file_is_applied(tmp_path):
    """To photos, streams and in Python alike: the answers are those of the file to the crop."""
    onnxruntime = pytest.importorskip("onnxruntime")
    folder = program_files.write_export(tmp_path / "export", program_files.config_of("image"))
    path = tmp_path / "calibrated.onnx"
    calibration = program_files.calibration(std_is_predicted=False)
    program_files.write_onnx(path, folder, calibration=calibration)
    picture = Image.fromarray(small_videos.two_people(1)[0])
    predictor = models.load(path)
    served = Faces(predictor, "calibrated")
    own = predictor.predict(picture)
    assert own.metadata["calibration"]["file"] == str(path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    frame = VideoFrame(1, 0.0, picture)
    for table in (own, served.photo(picture, "photo"), *served.stream("camera").update([frame])):
        assert table.person.tolist() == [1, 2]
        crops = [align.crop_face(picture, each) for each in table.landmarks]
        crop = np.stack([np.asarray(each.resize((32, 32), BILINEAR)) for each in crops])
        answers = dict(zip(names, session.run(None, {"crop": crop}), strict=True))
        for name, found in {
            "valence_arousal_std": table.va_std,
            "au_probability": table.au_probability,
            "expression_probability": table.expression_probability,
        }.items():
            np.testing.assert_allclose(found, answers[name], rtol=1e-4, atol=1e-6, err_msg=name)
        assert table.au_present.tolist() == answers["au_present"].tolist()
        assert table.expression.tolist() == answers["expression"].tolist()
