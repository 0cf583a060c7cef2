"""Checkpoints of a run: the only importer of orbax's manager.

Two kinds of steps are kept: the newest, from which a run goes on, and the best by the official
score. Saving is asynchronous and atomic: a step that was cut short is never seen.
"""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

from mtl_face.errors import WorkdirError
from mtl_face.weights import storage_errors

_SCORE = "score"
_UNFINISHED = "*.orbax-checkpoint-tmp*"


class Checkpoints:
    """Saves and restores a train state. Every process must make every call.

    A context manager: its end waits for the saves in flight. Where an exception ends it, that
    exception is the one to hear of, not what becomes of the last save.
    """

    def __init__(self, directory: Path, *, keep: int, read_only: bool = False) -> None:
        """Opens a folder of checkpoints.

        Attribute `metadata`: JSON values that every later save keeps beside the state.

        Args:
            directory: absolute path; made if absent.
            keep: newest steps to keep, besides the best.
            read_only: never write nor delete.

        Raises:
            WorkdirError: if it cannot be opened.
        """
        storage_errors.quiet()
        self.metadata: dict[str, Any] = {}
        self._directory = directory
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
                directory.mkdir(parents=True, exist_ok=True)
                if jax.process_index() == 0:
                    # What a kill left. Orbax would do it in a thread that outlives an early exit.
                    for folder in directory.glob(_UNFINISHED):
                        shutil.rmtree(folder)
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
        except (OSError, ValueError) as error:  # ValueError: a score that is no JSON
            raise WorkdirError(
                f"checkpoints cannot be opened: {storage_errors.first_words(error)}",
                path=directory,
                remedy="mend the permissions, delete the damaged step's folder, "
                "or choose another --workdir",
            ) from error

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        with contextlib.nullcontext() if kind is None else contextlib.suppress(WorkdirError):
            self.close()

    def save(self, step: int, state: Any, *, score: float | None = None) -> None:
        """Starts to save; returns when the state has been copied off the devices.

        Args:
            step: number of steps taken; a step that was saved already is not saved again.
            state: pytree of arrays.
            score: what the best checkpoint is chosen by, if it was evaluated.

        Raises:
            WorkdirError: if the folder cannot be written.
        """
        if step in self._manager.all_steps():
            return
        metrics = None if score is None else {_SCORE: float(score)}
        with _explained(self._directory):
            self._manager.save(
                step,
                args=ocp.args.Composite(state=ocp.args.StandardSave(state)),
                metrics=metrics,
                custom_metadata=self.metadata,
                force=True,
            )

    def newest(self) -> int | None:
        """Newest step, or None."""
        return self._manager.latest_step()

    def best(self) -> int | None:
        """Step with the highest score; None if none was evaluated."""
        return self._manager.best_step()

    def read_metadata(self, step: int) -> dict[str, Any]:
        """What was kept beside a state; empty for a step that was saved without.

        Raises:
            WorkdirError: if it is damaged.
        """
        try:
            return dict(self._manager.metadata(step).custom_metadata or {})
        except Exception as error:  # damaged files fail in whatever part of orbax meets them
            storage_errors.quiet_leftovers()
            raise WorkdirError(
                f"the checkpoint's metadata cannot be read: {storage_errors.first_words(error)}",
                path=self._directory / str(step),
                remedy="delete that folder to go on from an older checkpoint if there is one, "
                "or start in another workdir",
            ) from error

    def restore(self, step: int, like: Any) -> Any:
        """Reads a state.

        Args:
            step: a step that exists.
            like: pytree of ShapeDtypeStructs with shardings; the mesh may differ from the saved
                one's.

        Returns:
            The state, placed as `like` says.

        Raises:
            WorkdirError: if the files don't hold such a state.
        """
        try:
            restored = self._manager.restore(
                step, args=ocp.args.Composite(state=ocp.args.StandardRestore(like))
            )
        except Exception as error:  # damaged files fail in whatever part of orbax meets them
            storage_errors.quiet_leftovers()
            raise WorkdirError(
                f"the checkpoint cannot be read: {storage_errors.first_words(error)}",
                path=self._directory / str(step),
                remedy="delete that folder to go on from an older checkpoint if there is one, "
                "or start in another workdir",
            ) from error
        return restored.state

    def wait(self) -> None:
        """Blocks until every save is on disk.

        Raises:
            WorkdirError: if one failed.
        """
        with _explained(self._directory):
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits for saves in flight, and frees the threads.

        Raises:
            WorkdirError: if a save failed.
        """
        try:
            self.wait()
        finally:
            with _explained(self._directory):
                self._manager.close()


def abstract_like(state: Any, shardings: Any) -> Any:
    """ShapeDtypeStructs of a state with the given shardings, as `Checkpoints.restore` wants."""
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        state,
        shardings,
    )


@contextlib.contextmanager
def _explained(directory: Path) -> Iterator[None]:
    """Turns what the disk says into the user's error."""
    try:
        yield
    except (OSError, ValueError) as error:
        reason = storage_errors.disk_failure(error)
        if reason is None:
            raise
        storage_errors.quiet_leftovers()
        raise WorkdirError(
            f"checkpoints cannot be written: {reason}",
            path=directory,
            remedy="free some space or mend the permissions, then run the same command again: "
            "it goes on from the last good checkpoint",
        ) from error
