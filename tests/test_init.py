"""The Python door: each name leads to its room, and opening it costs nothing."""

import subprocess
import sys

import pytest

import physfed_ray
from physfed_ray.experiment import load_experiment
from physfed_ray.pages.compare import compare
from physfed_ray.runtime.run import run_experiment
from physfed_ray.serving.denoiser import Denoiser
from physfed_ray.serving.trained import load_run


def test_names_lead_where_they_say() -> None:
    found = {name: getattr(physfed_ray, name) for name in physfed_ray.__all__}
    assert found == {
        "Denoiser": Denoiser,
        "compare": compare,
        "load_experiment": load_experiment,
        "load_run": load_run,
        "run": run_experiment,
    }
    assert set(physfed_ray.__all__) <= set(dir(physfed_ray))
    with pytest.raises(AttributeError, match="no attribute 'denoise'"):
        _ = physfed_ray.denoise


def test_nothing_is_imported_before_it_is_asked_for() -> None:
    code = (
        "import sys, physfed_ray\n"
        "heavy = {'torch', 'ray', 'numpy', 'pydantic', 'pyarrow', 'scipy'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        "assert not [m for m in sys.modules if m.startswith('physfed_ray.')]\n"
        "physfed_ray.load_run\n"
        "assert 'torch' in sys.modules and 'ray' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
