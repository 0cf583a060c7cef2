"""TensorBoard's numbers on a disk that refuses them, and on a defect, which is no disk's fault."""

import pytest
import tensorflow as tf

from mtl_face.errors import WorkdirError
from mtl_face.run import faults

FULL = tf.errors.ResourceExhaustedError(None, None, "logs/events; No space left on device")


class Writer:
    def __init__(self, *errors):
        self.errors, self.steps = list(errors), []

    def write_scalars(self, step, numbers):
        self.steps.append(step)

    def flush(self):
        if self.errors and (error := self.errors.pop(0)):
            raise error


@pytest.mark.parametrize("error", [FULL, OSError(28, "No space left on device")])
def test_a_disk_that_refuses(tmp_path, capsys, error):
    write = faults.scalar_writer(Writer(error), tmp_path, on_failure="stop")
    with pytest.raises(WorkdirError, match=r"cannot be written: .*No space left"):
        write(1, {})
    writer = Writer(error, error, None)
    write = faults.scalar_writer(writer, tmp_path, on_failure="continue")
    for step in (1, 2, 3):
        write(step, {})
    assert writer.steps == [1, 2, 3]
    assert capsys.readouterr().err.count("No space left on device; going on") == 1


@pytest.mark.parametrize("policy", ["stop", "continue"])
def test_a_defect_is_not_taken_for_a_full_disk(tmp_path, policy):
    write = faults.scalar_writer(Writer(TypeError("no number")), tmp_path, on_failure=policy)
    with pytest.raises(TypeError):
        write(1, {})
