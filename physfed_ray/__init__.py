"""Simulation of personalised federated learning for low-dose CT on Ray.

The door for Python; each name is imported when it is first asked for.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from physfed_ray.experiment import Experiment, load_experiment
    from physfed_ray.pages.compare import compare
    from physfed_ray.runtime.run import run_experiment as run
    from physfed_ray.serving.denoiser import Denoiser
    from physfed_ray.serving.trained import TrainedRun, load_run

__version__ = "0.2.0"

__all__ = ["Denoiser", "Experiment", "TrainedRun", "compare", "load_experiment", "load_run", "run"]

_HOMES = {
    "Denoiser": ("serving.denoiser", "Denoiser"),
    "Experiment": ("experiment", "Experiment"),
    "TrainedRun": ("serving.trained", "TrainedRun"),
    "compare": ("pages.compare", "compare"),
    "load_experiment": ("experiment", "load_experiment"),
    "load_run": ("serving.trained", "load_run"),
    "run": ("runtime.run", "run_experiment"),
}

if not TYPE_CHECKING:  # a type checker would take any name for one of ours

    def __getattr__(name: str) -> object:
        from importlib import import_module

        if name not in _HOMES:
            raise AttributeError(f"module 'physfed_ray' has no attribute '{name}'")
        module, attribute = _HOMES[name]
        return getattr(import_module(f"physfed_ray.{module}"), attribute)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
