"""A tiny sweep on phantoms, and its file."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from physfed_ray.sweep.space import Sweep, load_sweep

TINY = """
sweep: tiny
experiment:
  name: tiny
  reports: {encoder: hashed}
  data:
    source: {phantom: {patients: 4, slices: 1}}
    image_size: 32
    test_patients: 1
    validation_patients: 1
  clients: [{id: c1, protocol: paper-2}, {id: c2, protocol: paper-6}]
  unseen: unseen-1
  backbone: {channels: 2}
  method: {name: scan_physfed}
  training: {rounds: 4, batch_size: 2, evaluate_every: 1}
space:
  method.tau: {log_uniform: [1e-6, 1]}
  method.hidden_dim: {choice: [8, 256]}
  training.lr: {log_uniform: [1e-4, 1e-2]}
trials: 4
final_seeds: [11]
pruner: none
"""

MakeSweep = Callable[..., Sweep]


@pytest.fixture(scope="package", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Let all sweeps share prepared data, the first of which takes seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PHYSFED_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def make_sweep(tmp_path: Path) -> MakeSweep:
    """Return a maker of the tiny sweep with overrides."""

    def make(*overrides: str, text: str = TINY) -> Sweep:
        path = tmp_path / "tiny.yaml"
        path.write_text(text)
        return load_sweep(path, overrides)

    return make
