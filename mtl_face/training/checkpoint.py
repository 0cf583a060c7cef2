"""Checkpoints of a run: the only importer of orbax's manager.

Two kinds of steps are kept: the newest, from which a run goes on, and the best by the official
score. Saving is asynchronous and atomic: a step that was cut short is never seen. With each state
go its fingerprint, so that a bit that a disk lost is noticed when the state is read, and its score,
which orbax keeps in another file.
"""

import contextlib
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils
from orbax.checkpoint import checkpoint_managers

from mtl_face import files, libraries
from mtl_face.errors import WorkdirError
from mtl_face.training import metadata
from mtl_face.training.processes import distributed

_T = TypeVar("_T")

_SCORE = "score"
_FINGERPRINT = "fingerprint"
_UNFINISHED = "*.orbax-checkpoint-tmp*"


class Checkpoints:
    """Saves and restores a train state. Every process must make every call.

    A context manager: its end waits for the saves in flight. An exception that ends it hides any
    failure of these saves.

    Attributes:
        metadata: JSON values that every later save keeps beside the state.
    """

    def __init__(
        self,
        directory: Path,
        *,
        keep: int,
        read_only: bool = False,
        on_save_failure: Literal["stop", "continue"] = "stop",
        warn: Callable[[str], None] | None = None,
    ) -> None:
        """Opens a folder of checkpoints, given by its absolute path; makes it if absent.

        `keep` is the number of newest steps kept besides the best. `read_only` never writes nor
        deletes. A save that the disk refuses is an error, or, with `on_save_failure="continue"`, a
        sentence for `warn`. WorkdirError if the folder cannot be opened.
        """
        libraries.quiet_orbax()
        self.metadata: dict[str, Any] = {}
        self._directory = directory
        self._continues = on_save_failure == "continue"
        self._warn = warn or (lambda sentence: None)
        policy = checkpoint_managers.AnyPreservationPolicy(
            [
                checkpoint_managers.LatestN(keep),
                checkpoint_managers.BestN(
                    get_metric_fn=lambda metrics: metrics[_SCORE],
                    n=1,
                    keep_checkpoints_without_metrics=False,
                ),
            ]
        )
        try:
            if not read_only:
                distributed.first(self._tidy)
            self._manager = ocp.CheckpointManager(
                directory,
                options=ocp.CheckpointManagerOptions(
                    preservation_policy=None if read_only else policy,
                    best_fn=lambda metrics: metrics[_SCORE],
                    best_mode="max",
                    read_only=read_only,
                    create=not read_only,
                    enable_async_checkpointing=not read_only,
                ),
            )
        except Exception as error:  # damaged files fail in whatever part of orbax meets them
            raise WorkdirError(
                f"checkpoints cannot be opened: {files.first_words(error)}",
                path=directory,
                remedy="correct the permissions; or give the run's own train command again, which "
                "mends what it can; or move the damaged step's folder away",
            ) from error

    def _tidy(self) -> None:
        """Removes what a kill left, and what would keep orbax from opening the folder."""
        self._directory.mkdir(parents=True, exist_ok=True)
        # Orbax would do it in a thread that outlives an early exit.
        for folder in self._directory.glob(_UNFINISHED):
            shutil.rmtree(folder)
        for step in metadata.steps(self._directory):
            metadata.put_out_of_the_way(self._directory / str(step))
            path = self._directory / str(step) / "metrics" / "metrics"
            with contextlib.suppress(OSError, ValueError):  # damaged: `restore` says so
                score = metadata.read(self._directory / str(step)).get(_SCORE)
                if score is not None and not _holds(path, score):
                    files.write_json(path, {_SCORE: score})
                    self._warn(f"{path} was damaged; the score is written again")

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        with contextlib.nullcontext() if kind is None else contextlib.suppress(WorkdirError):
            self.close()

    def save(
        self, step: int, state: Any, *, score: float | None = None, replace: bool = False
    ) -> None:
        """Starts to save; returns when the state has been copied off the devices.

        The best checkpoint is chosen by `score`; None for a state that was not evaluated. A step
        that exists is saved again only with `replace`.

        Raises:
            WorkdirError: this save or the one before could not be written, and `on_save_failure` is
                to stop.
        """
        if step in self._manager.all_steps():
            if not replace:
                return
            self._manager.delete(step)
        metrics = {} if score is None else {_SCORE: float(score)}
        with self._explained():
            self._manager.save(
                step,
                args=ocp.args.Composite(state=ocp.args.StandardSave(state)),
                metrics=metrics or None,
                custom_metadata=metadata.seal(
                    self.metadata | metrics | {_FINGERPRINT: fingerprint(state)}
                ),
                force=True,
            )

    def newest(self) -> int | None:
        """Newest step, or None."""
        return self._manager.latest_step()

    def best(self) -> int | None:
        """Step with the highest score; None if none was evaluated."""
        return self._manager.best_step()

    def read_metadata(self, step: int) -> dict[str, Any]:
        """What was kept beside a state, or nothing; raises WorkdirError if it is damaged."""
        found = self._all_metadata(step)
        return {key: found[key] for key in found if key not in (_FINGERPRINT, _SCORE)}

    def _all_metadata(self, step: int) -> dict[str, Any]:
        try:
            return metadata.read(self._directory / str(step))
        except (OSError, ValueError) as error:
            raise self._damaged(step, "the checkpoint's metadata", error) from error

    def restore(self, step: int, like: Any) -> Any:
        """Reads the state of a step that exists; WorkdirError if the files don't hold such a state.

        `like` is a pytree of ShapeDtypeStructs with shardings, by which the state is placed; the
        mesh may differ from the saved one's.
        """
        try:
            restored = self._manager.restore(
                step, args=ocp.args.Composite(state=ocp.args.StandardRestore(like))
            )
        except Exception as error:  # damaged files fail in whatever part of orbax meets them
            raise self._damaged(step, "the checkpoint", error) from error
        self._check_bits(step, restored.state)
        return restored.state

    def _check_bits(self, step: int, state: Any) -> None:
        expected = self._all_metadata(step).get(_FINGERPRINT)
        if expected is not None and fingerprint(state) != expected:
            raise self._damaged(
                step, "the checkpoint", ValueError("its bits are not those that were saved")
            )

    def restore_newest(self, like: Any) -> tuple[int, Any]:
        """Reads (step, state) of the newest state that is sound; `like` as for `restore`.

        Newer, damaged ones are set aside as `STEP.damaged`, with a warning; but only once an older
        one was read, so that what fails for another reason stays where it is. Of several processes
        the first decides, which reads the state once more for that. WorkdirError, that of the
        newest, if none is sound.
        """
        if jax.process_count() == 1:
            return self._newest_sound(lambda step: self.restore(step, like))
        # All processes must read the same step, and together: one that failed alone would leave
        # the others waiting for it. So process 0 looks first, and all use what it finds.
        found = -1
        if jax.process_index() == 0:
            found, _ = self._newest_sound(lambda step: self._read_alone(step, like))
        found = int(multihost_utils.broadcast_one_to_all(np.int32(found)))
        self._manager.reload()
        return found, self.restore(found, like)

    def _newest_sound(self, read: Callable[[int], _T]) -> tuple[int, _T]:
        """(step, what `read` gives of it) of the newest step that can be read."""
        first: WorkdirError | None = None
        damaged = []
        for step in sorted(self._manager.all_steps(), reverse=True):
            try:
                result = read(step)
                self.read_metadata(step)
            except WorkdirError as error:
                first = first or error
                damaged.append((step, error.problem))
                continue
            for number, problem in damaged:
                aside = self._set_aside(number)
                self._warn(
                    f"checkpoint {number} is damaged and was set aside as {aside.name} "
                    f"({problem}); going on from checkpoint {step}"
                )
            if damaged:
                self._manager.reload()
            return step, result
        raise first or WorkdirError(
            "holds no checkpoint", path=self._directory, remedy="train first: python run.py train"
        )

    def _read_alone(self, step: int, like: Any) -> None:
        """Reads a state in this process alone, to see whether it is sound."""
        place = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        here = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), like
        )
        alone = ocp.options.MultiprocessingOptions(
            primary_host=jax.process_index(),
            active_processes={jax.process_index()},
            barrier_sync_key_prefix="alone",
        )
        try:
            with ocp.Checkpointer(
                ocp.StandardCheckpointHandler(multiprocessing_options=alone),
                multiprocessing_options=alone,
            ) as checkpointer:
                state = checkpointer.restore(
                    self._directory / str(step) / "state", args=ocp.args.StandardRestore(here)
                )
        except Exception as error:  # as in `restore`
            raise self._damaged(step, "the checkpoint", error) from error
        self._check_bits(step, state)

    def _set_aside(self, step: int) -> Path:
        """Renames a step's folder; no file of it is lost."""
        folder = self._directory / str(step)
        aside = folder.with_name(f"{step}.damaged")
        number = 2
        while aside.exists():
            aside = folder.with_name(f"{step}.damaged{number}")
            number += 1
        try:
            folder.rename(aside)
        except OSError as error:
            raise WorkdirError(
                f"is damaged and cannot be renamed: {files.reason(error)}",
                path=folder,
                remedy=files.remedy(error, f"or rename it to {aside.name}"),
            ) from error
        return aside

    def _damaged(self, step: int, what: str, error: Exception) -> WorkdirError:
        libraries.quiet_orbax(after_failure=True)
        return WorkdirError(
            f"{what} cannot be read: {files.first_words(error)}",
            path=self._directory / str(step),
            remedy="move that folder away to go on from an older checkpoint if there is one, "
            "or start in another workdir",
        )

    def wait(self) -> None:
        """Blocks until every save is on disk; raises WorkdirError as `save`."""
        with self._explained():
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits for saves in flight, and frees the threads; raises WorkdirError as `save`."""
        try:
            self.wait()
        finally:
            with self._explained():
                self._manager.close()

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Turns what the disk says into the user's error, or into a warning."""
        try:
            yield
        except (OSError, ValueError) as error:
            failure = files.disk_failure(error)
            if failure is None:
                raise
            reason = files.reason(failure)
            libraries.quiet_orbax(after_failure=True)
            if self._continues:
                self._manager.reload()  # it counts the step that failed as saved
                self._warn(
                    f"a checkpoint could not be written to {self._directory}: {reason}; the last "
                    f"good one is {self.newest()}; going on, the next save is a new attempt"
                )
                return
            raise WorkdirError(
                f"checkpoints cannot be written: {reason}",
                path=self._directory,
                remedy=files.remedy(
                    failure,
                    "then run the same command again: it goes on from the last good checkpoint",
                ),
            ) from error


def _holds(path: Path, score: float) -> bool:
    """Whether orbax's file of a score holds this one."""
    try:
        return json.loads(path.read_bytes()) == {_SCORE: score}
    except (OSError, ValueError):
        return False


def fingerprint(state: Any) -> str:
    """A check sum of a pytree of arrays, typed random keys among them: 32 hexadecimal digits.

    The same for equal bits, whatever the mesh; another for a flipped bit anywhere. It is computed
    where the arrays lie. Every process must call.
    """
    leaves = [
        jax.random.key_data(leaf) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf
        for leaf in jax.tree.leaves(state)
    ]
    if jax.default_backend() == "cpu" and all(leaf.is_fully_addressable for leaf in leaves):
        sums = [_sum_of_bits(np.asarray(leaf)) for leaf in leaves]  # a view, nothing to compile
    else:
        # One small program for each shape; one for all arrays would take seconds to compile.
        sums = jax.device_get([_sum_on_device(leaf) for leaf in leaves])
    return hashlib.sha256(np.array(sums, np.uint32).tobytes()).hexdigest()[:32]


def _sum_of_bits(array: Any) -> Any:
    """Sum of an array's elements taken as whole numbers, modulo 2 ** 32: no rounding, any order."""
    bits = array.view(f"uint{8 * array.dtype.itemsize}")
    if bits.dtype.itemsize > 4:
        bits = bits ^ (bits >> 32)
    return bits.astype("uint32", copy=False).sum(dtype="uint32")


_sum_on_device = jax.jit(_sum_of_bits)
