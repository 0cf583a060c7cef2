"""`run.py export`: the parameters of a run alone, with a card that says what they are."""

import argparse
import json

import jax

from mtl_face import config as config_lib
from mtl_face import tasks
from mtl_face.commands import evaluate_run
from mtl_face.commands import workdir as workdirs
from mtl_face.commands.session import Session, absolute, say, versions
from mtl_face.weights import export


def run(config: config_lib.Config, options: argparse.Namespace) -> int:
    """Writes the checkpoint that the config asks for as orbax parameters.

    Args:
        config: the settings of the run.
        options: `workdir`, `output`.

    Returns:
        Exit status 0.
    """
    workdir = workdirs.open_for_reading(options.workdir, config)
    session = Session(config)
    step, state = evaluate_run.restore(session, workdir)
    variables = jax.device_get(
        {"params": state.params["network"], "batch_stats": state.batch_stats}
    )
    metrics_file = workdir / workdirs.EVALUATION / "metrics.json"
    metrics = json.loads(metrics_file.read_text()) if metrics_file.is_file() else None
    if metrics is not None and metrics["checkpoint_step"] != step:
        metrics = None  # another checkpoint's
    temperature = {
        task: float(value) for task, value in jax.device_get(session.temperatures(state)).items()
    }
    folder = absolute(options.output or workdir / "export")
    export.save(
        folder,
        variables,
        {
            "tasks": {
                "va": {"outputs": tasks.VA_NAMES, "range": [-1.0, 1.0], "kind": "values"},
                "au": {"outputs": tasks.AU_NAMES, "kind": "logits, independent"},
                "expr": {"outputs": tasks.EXPRESSION_NAMES, "kind": "logits, exclusive"},
            },
            "temperatures": temperature,
            "input": {
                "stored_size": config.data.image_size,
                "size": config.model.input_size,
                "channels": "RGB",
                "range": [0, 255],
                "mean": config.model.input_mean,
                "std": config.model.input_std,
            },
            "step": step,
            "metrics": metrics,
            "config": config_lib.to_dict(config),
            "versions": versions(),
        },
    )
    say(f"parameters: {folder}  (params/ is orbax, model.json says what they are)")
    say("next: mtl_face.weights.export.load(FOLDER) reads them in Python")
    return 0
