"""A real run on two data sets: what is trained on, logged and scored."""

import json

import pytest
import small_dataset
from small_experiment import Experiment


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
