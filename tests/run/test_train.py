"""Training through the command line: what is refused first, initial weights, a mixture."""

import collections
import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small_dataset
import torch
from evaluation_tables import make_labels
from model_settings import resnet
from small_experiment import Experiment, assert_is_users_error

from data_pipeline import sampling
from data_pipeline.order import Permutations
from mtl_face import config as config_lib
from mtl_face import export
from mtl_face.config.check import validate
from mtl_face.config.schema import ExprLossConfig, LossConfig
from mtl_face.errors import ConfigError, WeightsError
from mtl_face.objective.class_weights import ClassCounts
from mtl_face.run import datasets
from mtl_face.run import workdir as workdirs
from mtl_face.run.train import (
    _lengthen,
    class_counts,
    initial_weights,
    labels_seen,
    recorded_counts,
)
from mtl_face.training import experiment as training
from mtl_face.training.state import with_backbone
from mtl_face.weights import card as cards
from mtl_face.weights import exported, load_backbone

MEAN, STD = [128.0] * 3, [64.0] * 3


def write_weights(path, variant="caffe", width=8):
    """A backbone of the small experiment as the file of an export."""
    random = np.random.default_rng(5)
    network = resnet((1,), width, 2)
    abstract = jax.eval_shape(
        lambda: network.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)), train=False)
    )
    variables = jax.tree.map(
        lambda leaf: random.uniform(0.5, 1, leaf.shape).astype(np.float32), dict(abstract)
    )
    model = config_lib.ModelConfig(
        input_size=32,
        input_mean=tuple(MEAN),
        input_std=tuple(STD),
        backbone=config_lib.BackboneConfig(variant=variant),
    )
    config = config_lib.Config(data=config_lib.DataConfig(image_size=32), model=model)
    temperatures = {"va": 1.0, "au": 1.0, "expr": 1.0}
    card = cards.make(config, temperatures=temperatures, crop={}, step=0)
    folder = path.with_name(path.name + "_exported")
    export.save(folder, variables, card, form="safetensors")
    (folder / exported.SAFETENSORS).rename(path)
    return exported.flatten(variables)


def make_config(init_from, width=8, fsdp=1):
    model = {
        "input_size": 32,
        "input_mean": MEAN,
        "input_std": STD,
        "embed_dim": 128,
        "num_heads": 4,
        "encoder_layers": 1,
        "decoder_modules": 1,
        "head_width": 16,
        "backbone": {
            "stage_sizes": (1,),
            "width": width,
            "expansion": 2,
            "init_from": str(init_from),
        },
    }
    return validate(
        {"data": {"root": "/x", "image_size": 32}, "model": model, "mesh": {"fsdp": fsdp}}
    )


@pytest.mark.parametrize("fsdp", [1, 4])
def test_placed_in_the_backbone_alone(tmp_path, fsdp):
    path = tmp_path / "weights"
    tensors = write_weights(path, width=64)
    config = make_config(path, width=64, fsdp=fsdp)
    said = []
    backbone = initial_weights(config, said.append)
    fresh = training.Experiment(config)
    before = jax.tree.map(
        lambda leaf: (
            jax.device_put(jnp.zeros(leaf.shape, leaf.dtype), leaf.sharding)
            if leaf.dtype == jnp.float32
            else leaf
        ),
        fresh.state_like,
    )
    state = with_backbone(before, backbone.params, backbone.batch_stats)

    def placement(leaf):
        return leaf.shape, leaf.dtype, leaf.sharding

    assert jax.tree.map(placement, state) == jax.tree.map(placement, fresh.state_like)
    kernel = state.params["network"]["backbone"]["stage1_block1"]["conv2"]["kernel"]
    assert len({str(shard.index) for shard in kernel.addressable_shards}) == fsdp
    found = {
        jax.tree_util.keystr(keys, simple=True, separator="/"): np.asarray(leaf)
        for collection, tree in (
            ("params", state.params["network"]),
            ("batch_stats", state.batch_stats),
        )
        for keys, leaf in jax.tree_util.tree_flatten_with_path({collection: tree})[0]
    }
    replaced = 0
    for name, leaf in found.items():
        if "/backbone/" in name:
            np.testing.assert_array_equal(leaf, tensors[name.replace("/backbone", "")])
            replaced += 1
        else:
            assert not leaf.any()
    assert replaced == len(tensors)
    assert said[0].startswith(f"initial weights: {path} (sha256 ")
    assert any("matched 5 convolutions and 5 batch norms" in line for line in said)


def test_weights_have_the_structure_of_a_fresh_state(tmp_path):
    path = tmp_path / "weights"
    write_weights(path)
    config = make_config(path)
    backbone = load_backbone(path)
    abstract = training.Experiment(config).state_like
    for mine, theirs in (
        (backbone.params, abstract.params["network"]["backbone"]),
        (backbone.batch_stats, abstract.batch_stats["backbone"]),
    ):
        assert jax.tree.structure(mine) == jax.tree.structure(theirs)


def test_random_without_a_file():
    config = validate({"data": {"root": "/x"}})
    assert initial_weights(config, print) is None


def test_labels_that_training_sees_are_counted():
    """Of the rows that are drawn: those with an expression alone, and none of them has an AU."""
    labels = make_labels(60, missing=0.5)
    labels = labels.take((labels.expression >= 0) != ~np.isnan(labels.au[:, 0]))
    labels = labels.only_tasks(("au", "expr"))
    order = sampling.Draws(labels.expression >= 0, seed=0)
    drawn = np.concatenate([order.epoch(number) for number in range(3)])
    seen = labels_seen(labels, order, 3)
    assert (seen["va"], seen["au"], seen["expr"]) == (0, 0, len(order.epoch(0)))
    assert np.isnan(labels.au[drawn]).all()
    every = labels_seen(labels, Permutations(len(labels), seed=0), 1)
    for task, mask in labels.labelled().items():
        assert every[task] == mask.sum()
    one = dataclasses.replace(
        labels, au=np.where(np.arange(12) == 3, labels.au, np.nan).astype("f4")
    )
    units = labels_seen(one, Permutations(len(one), seed=0), 1)["per_au"]
    assert [name for name, count in units.items() if count] == ["au6"]


def test_a_run_to_go_on_with_needs_no_file(tmp_path):
    config = make_config(tmp_path / "gone")
    with pytest.raises(WeightsError, match="does not exist"):
        initial_weights(config, print)
    assert not workdirs.has_checkpoint(tmp_path)
    (tmp_path / "checkpoints" / "5").mkdir(parents=True)
    assert workdirs.has_checkpoint(tmp_path)  # `train` reads no initial weights then


@pytest.mark.parametrize("setting", [{"init_channels": "bgr"}, {"init_prefix": "ema."}])
def test_how_to_read_a_file_without_a_file(setting):
    with pytest.raises(ConfigError, match="init_from names no file"):
        validate({"data": {"root": "/x"}, "model": {"backbone": setting}})


@pytest.fixture
def experiment(tmp_path):
    return Experiment(tmp_path)


def torchvision_resnet50():
    """Names and shapes in a few kilobytes."""
    state = collections.OrderedDict()

    def layer(convolution, norm, *shape):
        state[f"{convolution}.weight"] = torch.zeros(1).expand(shape)
        for kind in ("weight", "bias", "running_mean", "running_var"):
            state[f"{norm}.{kind}"] = torch.zeros(1).expand(shape[0])

    layer("conv1", "bn1", 64, 3, 7, 7)
    channels = 64
    for stage, blocks in enumerate((3, 4, 6, 3)):
        inner = 64 * 2**stage
        for block in range(blocks):
            name = f"layer{stage + 1}.{block}"
            layer(f"{name}.conv1", f"{name}.bn1", inner, channels, 1, 1)
            layer(f"{name}.conv2", f"{name}.bn2", inner, inner, 3, 3)
            layer(f"{name}.conv3", f"{name}.bn3", inner * 4, inner, 1, 1)
            if block == 0:
                down = f"{name}.downsample"
                layer(f"{down}.0", f"{down}.1", inner * 4, channels, 1, 1)
            channels = inner * 4
    return state


def test_wrong_pairing_ends_the_command_before_any_work(experiment, capsys):
    path = experiment.folder / "resnet50.pth"
    classifier = {"fc.weight": torch.zeros(1).expand(1000, 2048)}
    torch.save(torchvision_resnet50() | classifier, path)
    status, out, err = experiment.run(capsys, "train", f"--config.model.backbone.init_from={path}")
    assert status == 2
    assert out == ""
    assert err.startswith(f"error: {path}: does not fit the settings: ")
    assert "model.backbone.variant is caffe, the weights need torchvision" in err
    for flag in (
        "variant=torchvision",
        "stage_sizes=3,4,6,3",
        "width=64",
        "expansion=4",
    ):
        assert f"--config.model.backbone.{flag}" in err
    assert "--config.model.input_mean=123.675,116.28,103.53" in err
    assert "--config.model.input_std=58.395,57.12,57.375" in err


def test_a_bad_file_ends_the_command(experiment, capsys):
    path = experiment.folder / "weights.h5"
    path.write_bytes(b"")
    status, _, err = experiment.run(capsys, "train", f"--config.model.backbone.init_from={path}")
    assert status == 2
    assert err == f"error: {path}: is empty\n  -> copy or download it again\n"
    assert not workdirs.is_run(experiment.workdir)  # as if it had not been asked for


@pytest.mark.slow
def test_a_run_from_weights(experiment, capsys):
    path = experiment.folder / "weights.safetensors"
    tensors = write_weights(path)
    flag = f"--config.model.backbone.init_from={path}"
    more = [
        "--config.optimizer.epochs=1",
        "--config.training.evaluate_every_epochs=1",
        "--config.optimizer.backbone_learning_rate=0",
        "--config.optimizer.weight_decay=0",
    ]
    status, out, err = experiment.run(capsys, "train", flag, "--timing", *more)
    assert (status, err) == (0, "")
    assert f"initial weights: {path}" in out
    timed = [line[8:18].strip() for line in out.splitlines() if line.startswith("timing: ")]
    parts = ["settings", "imports", "data", "network", "input", "compile", "first step", "all"]
    assert timed == parts
    assert "  left out: nothing" in out
    recorded = json.loads((experiment.workdir / "provenance.json").read_text())
    assert recorded["initial_weights"]["file"] == "weights.safetensors"
    assert recorded["initial_weights"] == load_backbone(path).source
    # The backbone did not learn, so it still is what the run began with.
    status, _, err = experiment.run(capsys, "export", flag, *more)
    assert (status, err) == (0, "")
    exported = load_backbone(experiment.workdir / "export")
    assert exported.source["provenance"]["initial_weights"]["file"] == "weights.safetensors"
    flat = jax.tree_util.tree_flatten_with_path(exported.params)[0]
    assert len(flat) > 10
    for keys, leaf in flat:
        name = jax.tree_util.keystr(keys, simple=True, separator="/")
        np.testing.assert_array_equal(leaf, tensors[f"params/{name}"])
    # the file is needed no more
    path.unlink()
    status, out, err = experiment.run(capsys, "train", flag, *more)
    assert (status, err) == (0, "")
    assert "training is complete" in out


def test_data_root_missing(experiment, capsys):
    experiment.data = experiment.folder / "nowhere"
    result = experiment.run(capsys, "train")
    assert_is_users_error(result, experiment.data, "the folder of the data set does not exist")


def test_annotation_file_wrong(experiment, capsys):
    annotations = experiment.data / "training_set_annotations.txt"
    lines = annotations.read_text().splitlines()
    lines[3] = lines[3].replace(",", ";")
    annotations.write_text("\n".join(lines) + "\n")
    result = experiment.run(capsys, "train")
    assert_is_users_error(result, f"{annotations}", "4")


def test_a_cosine_that_goes_on_past_its_end(experiment):
    """The rate is that of the longer cosine from there on, which is said."""

    def config(epochs):
        given = ["optimizer.schedule=cosine", "optimizer.warmup_epochs=0"]
        root = f"data.root={experiment.data}"
        return config_lib.load(experiment.config, [root, *given, f"optimizer.epochs={epochs}"])

    folder, said = workdirs.open_for_training(experiment.workdir, config(2)), []
    (folder / workdirs.CHECKPOINTS / "10").mkdir(parents=True)
    longer = training.Experiment(config(4), steps_per_epoch=5)
    _lengthen(folder, longer, 10, said.append)
    rate = 1e-3 * (1 + np.cos(np.pi * (10 - 1) / (20 - 1))) / 2  # after a warm-up of one step
    assert said == [
        "optimizer.epochs was 2 and is 4",
        f"note: the learning rate of rest goes on at {rate:.3g}, and not at 0: "
        "its cosine now ends with epoch 4",
    ]
    _lengthen(folder, longer, 10, said.append)
    assert len(said) == 2


def test_a_rule_of_adapters_that_fits_nothing(experiment, capsys):
    """It ends the command before data are read."""
    options = ("--config.optimizer.lora.rank=2", "--config.optimizer.lora.kernels=layer9/attention")
    result = experiment.run(capsys, "train", *options, "--config.data.root=/nowhere")
    assert_is_users_error(result, "'layer9/attention'", "encoder/layer1/attention/")
    assert "/nowhere" not in result[2]


def test_batch_does_not_split_over_the_devices(experiment, capsys):
    assert jax.device_count() == 8
    result = experiment.run(capsys, "train", "--config.optimizer.batch_size=12")
    assert_is_users_error(result, "optimizer.batch_size 12", "8 devices", "use 8 or 16")
    result = experiment.run(
        capsys, "train", "--config.optimizer.batch_size=24", "--config.augmentation.mixup_alpha=1"
    )
    assert_is_users_error(result, "optimizer.batch_size 24", "use 16 or 32")
    result = experiment.run(capsys, "train", "--config.evaluation.batch_size=3")
    assert_is_users_error(result, "evaluation.batch_size 3", "use 8")


def test_mesh_does_not_fit_the_devices(experiment, capsys):
    result = experiment.run(capsys, "train", "--config.mesh.data=3")
    assert_is_users_error(result, "a mesh of 3 x 1 does not fit 8 devices")
    result = experiment.run(capsys, "train", "--config.mesh.fsdp=3")
    assert_is_users_error(result, "does not fit 8 devices")


def test_batch_larger_than_the_data_set(experiment, capsys):
    result = experiment.run(capsys, "train", "--config.optimizer.batch_size=64")
    assert_is_users_error(result, "64 is larger than the 40 rows")


def test_a_wrong_setting_does_not_claim_the_workdir(experiment, capsys):
    for batch_size in (64, 12):
        result = experiment.run(capsys, "train", f"--config.optimizer.batch_size={batch_size}")
        assert_is_users_error(result, f"batch_size {batch_size}")


@pytest.mark.slow
def test_counts_of_classes_stay_those_of_the_runs_start(experiment, capsys):
    """Of a run that goes on with other labels, and on the card of its export."""
    more = [
        "--config.loss.va.ccc=0.5",
        "--config.loss.expr.class_weights=effective",
        "--config.loss.au.positive_weights=sqrt",
        "--config.loss.au.gamma_negative=2",
        "--config.uncertainty.kind=learned",
        "--config.uncertainty.temperature_floor=0.05",
        "--config.training.evaluate_every_epochs=1",
    ]
    status, _, err = experiment.run(capsys, "train", *more, "--config.optimizer.epochs=1")
    assert (status, err) == (0, "")
    settings = config_lib.load_config(
        str(experiment.config), **{"data.root": str(experiment.data), "loss.va.ccc": 0.5}
    )
    table, rows = datasets.load_training(settings.data, seed=settings.seed, say=print)
    expected = ClassCounts.of(table, rows.epoch(0))
    assert recorded_counts(experiment.workdir) == expected
    assert class_counts(settings, experiment.workdir, table, rows) is None
    weighted = dataclasses.replace(
        settings, loss=LossConfig(expr=ExprLossConfig(class_weights="inverse"))
    )
    fewer = table.take(np.arange(len(table)) % 2 == 0)
    fewer_rows = Permutations(len(fewer), seed=0)
    assert class_counts(weighted, experiment.workdir, fewer, fewer_rows) == expected
    assert class_counts(weighted, experiment.folder / "new", fewer, fewer_rows) != expected
    status, _, err = experiment.run(capsys, "export", *more, "--config.optimizer.epochs=1")
    assert (status, err) == (0, "")
    card = exported.load(experiment.workdir / "export")[1]
    assert ClassCounts.from_metadata(card["training"]["class_counts"]) == expected
    assert card["config"]["loss"]["expr"]["class_weights"] == "effective"


@pytest.mark.slow
def test_trains_on_a_mixture(tmp_path, capsys):
    experiment = Experiment(tmp_path)
    small_dataset.write(tmp_path / "other", seed=1, rows={"training": 25, "validation": 9})
    status, out, err = experiment.run(
        capsys,
        "train",
        f"--config.data.mixture.main.root={experiment.data}",
        f"--config.data.mixture.other.root={tmp_path / 'other'}",
        "--config.data.mixture.other.weight=2",
        "--config.data.mixture.other.tasks=expr",
        "--config.data.validation=main",
        "--config.data.validate_each=true",
        "--config.data.sampling=expression_balanced",
        "--config.optimizer.epochs=2",
        "--config.training.evaluate_every_epochs=1",
    )
    assert status == 0, err
    # 40 rows and 25 rows of weight 2: 40 of 90 and 50 of 90 of an epoch of 65.
    assert "an epoch takes 29 of its 65 examples from main" in out
    assert "an epoch takes 36 of its 65 examples from other" in out
    rows = [json.loads(line) for line in (experiment.workdir / "history.jsonl").open()]
    trained = [row for row in rows if "train/loss" in row]
    assert rows[-1]["step"] == 17  # 130 examples in batches of 8
    for row in trained:
        assert row["train/count/other/va"] == row["train/count/other/au"] == 0
        assert row["train/count/main/examples"] + row["train/count/other/examples"] == 8
        assert row["train/count/va"] == row["train/count/main/va"]
    assert any(row["train/count/other/expr"] for row in trained)
    scored = [row for row in rows if "validation/score" in row]
    assert all("validation/other/score" in row for row in scored)
