"""Task tokens of a data set: what a trained network gives, computed once and kept."""

import dataclasses
import functools

import drawn_run
import jax
import numpy as np
import pytest
from small_experiment import Experiment, assert_is_users_error

from data_pipeline import images
from mtl_face.cli import main
from mtl_face.errors import ConfigError
from mtl_face.faces import points
from mtl_face.run import datasets, models
from mtl_face.run.inputs import tokens
from mtl_face.run.inputs.pixels import find_pixels
from mtl_face.run.predict import predict_table


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    experiment = Experiment(tmp_path_factory.mktemp("tokens"))
    drawn_run.write(experiment, experiment.workdir)
    return experiment


@pytest.fixture(scope="module")
def model(experiment):
    return models.load(experiment.workdir)


def settings(model, folder):
    return dataclasses.replace(
        model.config, data=dataclasses.replace(model.config.data, features=str(folder))
    )


def tokens_of(model, config, **options):
    table = datasets.load_split(config.data, "validation", print)
    return table, tokens.ensure(model, config, table, split="validation", say=print, **options)


def test_they_are_those_of_the_network_with_its_answers(model, tmp_path):
    config = settings(model, tmp_path)
    table, arrays = tokens_of(model, config)
    image_NSS3 = np.stack([images.read_image(path, 32) for path in table.paths()])
    forward = functools.partial(model.forward.network.apply, train=False, return_tokens=True)
    outputs = jax.jit(forward)(jax.device_get(model.variables), image_NSS3.astype(np.float32))
    assert arrays["tokens"].shape == (len(table), 3, 16)
    assert arrays["tokens"].dtype == np.float16
    np.testing.assert_allclose(arrays["tokens"], outputs["tokens"], rtol=2e-3, atol=2e-3)
    predicted = predict_table(model, find_pixels(config, table, print))
    for task in ("va", "au", "expr"):  # of another program, which rounds otherwise
        np.testing.assert_allclose(arrays[task], predicted.values(task), rtol=1e-6, atol=1e-6)


def test_the_mean_of_the_patches_is_a_fourth_in_a_folder_of_its_own(model, tmp_path):
    config = settings(model, tmp_path)
    table, three = tokens_of(model, config)
    temporal = dataclasses.replace(config.temporal, tokens="task+patches")
    _, four = tokens_of(model, dataclasses.replace(config, temporal=temporal))
    assert four["tokens"].shape == (len(table), 4, 16)
    assert four["tokens"].dtype == np.float16
    np.testing.assert_allclose(four["tokens"][:, :3], three["tokens"], rtol=2e-3, atol=2e-3)
    np.testing.assert_allclose(four["va"], three["va"], rtol=1e-6, atol=1e-6)
    image_NSS3 = np.stack([images.read_image(path, 32) for path in table.paths()])
    _, state = model.forward.network.apply(
        jax.device_get(model.variables),
        image_NSS3.astype(np.float32),
        train=False,
        capture_intermediates=lambda module, _: module.name == "encoder",
        mutable=["intermediates"],
    )
    (patch_NPD,) = state["intermediates"]["encoder"]["__call__"]
    assert patch_NPD.shape[1] > 1
    expected = np.asarray(patch_NPD).mean(axis=1)
    np.testing.assert_allclose(four["tokens"][:, 3], expected, rtol=2e-3, atol=2e-3)
    assert len([path for path in tmp_path.iterdir() if path.is_dir()]) == 2


def test_an_interrupted_computation_goes_on(model, tmp_path, monkeypatch):
    class StopError(Exception):
        pass

    def stop(done, total):
        if done == 8:
            raise StopError

    monkeypatch.setattr("data_pipeline.features._SECONDS_BETWEEN_NOTES", -1.0)
    with pytest.raises(StopError):
        tokens_of(model, settings(model, tmp_path / "part"), progress=stop)
    (part,) = (tmp_path / "part").glob("*.part")
    done = []
    _, arrays = tokens_of(
        model, settings(model, tmp_path / "part"), progress=lambda *state: done.append(state)
    )
    assert not part.exists()
    assert done[0][0] in (0, 8)
    _, whole = tokens_of(model, settings(model, tmp_path / "whole"))
    for name, array in whole.items():
        np.testing.assert_array_equal(arrays[name], array)


def test_other_rows_and_other_models_have_tokens_of_their_own(experiment, model, tmp_path):
    config = settings(model, tmp_path)
    table, arrays = tokens_of(model, config)
    part = table.take(np.arange(len(table)) % 2 == 0)
    found = tokens.ensure(model, config, part, split="validation", say=print)
    np.testing.assert_array_equal(found["va"], arrays["va"][::2])
    other = dataclasses.replace(model, origin={**model.origin, "weights_sha256": "0" * 64})
    tokens_of(other, config)
    assert len([path for path in tmp_path.iterdir() if path.is_dir()]) == 3


def test_another_crop_is_refused_and_so_is_a_program(model, tmp_path, monkeypatch):
    config = settings(model, tmp_path)
    larger = dataclasses.replace(config, data=dataclasses.replace(config.data, image_size=64))
    with pytest.raises(ConfigError, match=r"takes crops of 32 pixels, and data\.image_size is 64"):
        tokens_of(model, larger)
    monkeypatch.setitem(model.forward.__dict__, "with_tokens", None)
    with pytest.raises(ConfigError, match="is a program"):
        tokens_of(model, config)


@pytest.mark.slow
def test_the_command(experiment, tmp_path, capsys):
    status = main.main(["features", f"--model={experiment.workdir}", f"--output={tmp_path}"])
    out = capsys.readouterr().out
    assert status == 0
    assert "train: task tokens of 40 rows" in out
    assert "validation: task tokens of 19 rows" in out
    again = main.main(["features", f"--model={experiment.workdir}", f"--output={tmp_path}"])
    assert again == 0
    assert "computing" not in capsys.readouterr().out
    result = main.main(["features"]), *capsys.readouterr()
    assert_is_users_error(result, "neither settings nor a model")


@pytest.mark.slow
def test_of_a_network_of_points(tmp_path, monkeypatch):
    def made_up(crop_NSS3):
        point_N3 = crop_NSS3.mean(axis=(1, 2)) / 2550
        return np.repeat(point_N3[:, None], 468, axis=1).astype(np.float32), np.ones(
            len(crop_NSS3), bool
        )

    monkeypatch.setattr(points, "points_of_crops", made_up)
    experiment = Experiment(tmp_path)
    drawn_run.write(experiment, experiment.workdir, "model.inputs=points")
    model = models.load(experiment.workdir)
    table, arrays = tokens_of(model, model.config)
    predicted = predict_table(model, find_pixels(model.config, table, print))
    np.testing.assert_allclose(arrays["va"], predicted.va, rtol=1e-6, atol=1e-6)
