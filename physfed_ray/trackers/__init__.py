"""Where a run's curves go while it trains: TensorBoard, MLflow, Weights & Biases.

Only numbers and the experiment's settings are sent, the settings without the ids of patients and
the folders of the data. The tools are configured by their own environment variables
(``MLFLOW_TRACKING_URI``, ``WANDB_PROJECT``, ``WANDB_MODE``, ...). Each works in a thread of its
own, so that a slow or dead server costs the rounds nothing.
"""

import importlib
import logging
import os
from collections.abc import Callable, Sequence

from physfed_ray.errors import PhysFedError
from physfed_ray.rundir.long_table import MetricRow
from physfed_ray.rundir.run_directory import RunDirectory
from physfed_ray.trackers.background import Background, Together
from physfed_ray.trackers.base import RunId, Status, Tracker, Warn, public_settings
from physfed_ray.trackers.mlflow import MLflow
from physfed_ray.trackers.tensorboard import TensorBoard
from physfed_ray.trackers.wandb import WandB

__all__ = ["MetricRow", "Status", "TensorBoard", "Tracker", "make_tracker", "public_settings"]

TITLES = {"tensorboard": "TensorBoard", "mlflow": "MLflow", "wandb": "Weights & Biases"}

LOGGER = logging.getLogger(__name__)


def make_tracker(
    names: Sequence[str],
    experiment_yaml: str,
    run_name: str,
    run_dir: str,
    resume: bool,
    warn: Warn = LOGGER.warning,
) -> Tracker:
    """Return one tracker that feeds all that are named.

    Args:
        names: Of "tensorboard", "mlflow", "wandb".
        experiment_yaml: The resolved experiment.
        run_name: Name of the run in the tools.
        run_dir: Run directory, a local path or an fsspec URL. ``trackers/`` in it keeps the ids
            under which the tools know the run.
        resume: Go on with the run of those ids.
        warn: Receives a sentence when a tool cannot be reached, once a tool, in the thread that
            calls ``add`` or ``finish``.

    Raises:
        PhysFedError: If a package is missing, or Weights & Biases has no key.
    """
    directory = RunDirectory(run_dir)
    settings = public_settings(experiment_yaml)
    makers: dict[str, Callable[[], Tracker]] = {
        "tensorboard": lambda: TensorBoard(run_dir),
        "mlflow": lambda: MLflow(settings, run_name, mlflow_id),
        "wandb": lambda: WandB(settings, run_name, wandb_id, directory),
    }
    mlflow_id, wandb_id = (RunId(directory, name, resume) for name in ("mlflow", "wandb"))
    for name in names:
        _require(name)
    return Together([Background(TITLES[name], makers[name], warn) for name in names])


def _require(name: str) -> None:
    """Import a tool now, where its absence can still be told."""
    if name == "tensorboard":
        return
    if name == "mlflow":  # else MLflow reports on its use to its makers
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    try:
        tool = importlib.import_module(name)
    except ImportError as error:
        raise PhysFedError(
            f"tracking: {TITLES[name]} is not installed ({error}): "
            f"`pip install physfed_ray[{name}]`, or take {name} out of tracking"
        ) from error
    if name == "wandb":
        online = tool.setup().settings.mode not in ("offline", "disabled")
        if online and not tool.login(prompt=False, verify=False):
            raise PhysFedError(
                "tracking: Weights & Biases has no key: run `wandb login`, set WANDB_API_KEY, or "
                "keep the curves on this machine with WANDB_MODE=offline"
            )
