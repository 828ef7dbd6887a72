"""Weights & Biases, online or offline, as ``WANDB_MODE`` says."""

import os
import uuid
from collections.abc import Sequence
from typing import Any

from physfed_ray.rundir.long_table import MetricRow
from physfed_ray.rundir.run_directory import RunDirectory
from physfed_ray.trackers.base import NOT_SENT, PROJECT, Curves, RunId, Status, Tracker

TIMEOUT_S = 30.0


class WandB(Tracker):
    """A run in the Weights & Biases project ``WANDB_PROJECT``, by default ``physfed_ray``.

    Nothing but config and curves is sent: no console output (it may name patients), no source
    code, no command line, no description of the machine.

    Args:
        settings: The experiment's settings.
        run_name: Name of the run, unless ``WANDB_NAME`` is set.
        run_id: Which run to go on with.
        directory: Run directory; W&B's local files go there when it is a folder.
    """

    def __init__(
        self, settings: dict[str, Any], run_name: str, run_id: RunId, directory: RunDirectory
    ) -> None:
        import wandb

        run = run_id.get()
        if run is None:
            run = uuid.uuid4().hex[:12]
            run_id.keep(run)
        folder = os.environ.get("WANDB_DIR") or directory.local_path
        self._curves = Curves()
        try:
            self._run = wandb.init(
                project=os.environ.get("WANDB_PROJECT", PROJECT),
                name=os.environ.get("WANDB_NAME", run_name),
                id=run,
                resume="allow",
                config=settings,
                dir=folder and str(folder),
                settings=wandb.Settings(
                    silent=True,
                    init_timeout=TIMEOUT_S,
                    finish_timeout=TIMEOUT_S,
                    host=NOT_SENT,
                    console="off",
                    disable_git=True,
                    disable_code=True,
                    x_disable_meta=True,
                    x_disable_machine_info=True,
                    x_disable_stats=True,
                    x_save_requirements=False,
                ),
            )
        except Exception:
            wandb.teardown()  # else its service keeps the id, and the next attempt is refused
            raise
        self._run.define_metric("*", step_metric="round")

    def add(self, rows: Sequence[MetricRow]) -> None:
        """See ``Tracker.add``."""
        for number, values in self._curves.points(rows).items():
            self._run.log({"round": number, **values})

    def finish(self, status: Status) -> None:
        """See ``Tracker.finish``."""
        self._run.finish(exit_code=0 if status == "finished" else 1)
