"""A hash of a model: equal for equal models, another for any that gives other images."""

from collections.abc import Callable

import torch

from physfed_ray.serving.trained import load_run
from tests.serving.conftest import Trained


def test_equal_models_have_equal_hashes_and_others_none(train: Callable[..., Trained]) -> None:
    root = train("scan_physfed").root
    run = load_run(root)
    own = run.denoiser("c-paper-1")
    assert own.model_hash == load_run(root).denoiser("c-paper-1").model_hash
    assert len(own.model_hash) == 32
    others = [
        run.denoiser("c-paper-2"),
        *(run.denoiser(protocol=p) for p in ("paper-3", "paper-8")),
    ]
    assert len({own.model_hash, *(other.model_hash for other in others)}) == 4
    changed = run.denoiser("c-paper-1")
    with torch.no_grad():
        changed.network.get_parameter("decoder.layers.0.bias")[0] += 1e-6
    assert changed.model_hash != own.model_hash
