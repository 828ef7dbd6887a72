"""Classical denoisers: tuned where they may be, scored like a method."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from physfed_ray.ct.protocol import PRESETS
from physfed_ray.data.prepared import Prepared, PreparedClient, Statistics
from physfed_ray.data.store import ClientData, write_client_data
from physfed_ray.metrics.scoring import score_slices
from physfed_ray.results.classical import (
    DENOISERS,
    STRENGTHS,
    classical_scores,
    denoise,
    nearest,
    tune_classical,
)

WINDOW = (-1000.0, 2000.0)


def _data(noise: float, slices: int = 3, n: int = 40, seed: int = 0) -> ClientData:
    rng = np.random.default_rng(seed)
    full = np.stack([gaussian_filter((rng.random((n, n)) > 0.5) * 1.0, 3) for _ in range(slices)])
    full = np.clip((full - 0.4) * 3 + 0.3, 0, 1).round(1).astype(np.float32)
    low = np.clip(full + rng.normal(0, noise, full.shape), 0, 1).astype(np.float32)
    return ClientData(
        low=low,
        full=full,
        body=np.ones(full.shape, np.uint8),
        embedding=np.zeros((slices, 1, 2), np.float32),
        embedding_mask=np.ones((slices, 1), np.uint8),
        g=PRESETS["paper-1"].normalised(),
        patient=["p"] * slices,
        slice=np.arange(slices, dtype=np.int32),
        scale=np.ones(slices, np.float32),
        report=[""] * slices,
    )


def _mean_psnr(images: np.ndarray, data: ClientData) -> float:
    return float(score_slices(images, data.full, data.body, (0.0, 1.0), {})["psnr"].mean())


@pytest.mark.parametrize("name", DENOISERS)
def test_tuning_finds_the_best_of_its_grid_and_grows_with_the_noise(name: str) -> None:
    chosen = []
    for noise in (0.01, 0.06):
        data = _data(noise)
        strength, psnr = tune_classical(name, data)
        each = [
            score_slices(denoise(name, data.low, s), data.full, data.body, (0, 1), {})[
                "psnr"
            ].mean()
            for s in STRENGTHS
        ]
        assert strength == STRENGTHS[int(np.argmax(each))]
        assert psnr == pytest.approx(max(each))
        assert psnr > _mean_psnr(data.low, data)
        chosen.append(strength)
    assert chosen[0] < chosen[1]


def _prepared(root: Path) -> Prepared:
    """Two seen clients with little and much noise, and one unseen protocol near the second."""
    clients = []
    for name, noise in (("paper-1", 0.01), ("paper-7", 0.06), ("unseen-3", 0.03)):
        paths = {split: root / f"{name}-{split}.arrow" for split in ("validation", "test")}
        for seed, path in enumerate(paths.values()):
            write_client_data(path, _data(noise, seed=seed))
        clients.append(
            PreparedClient(name, PRESETS[name], None, paths["validation"], paths["test"], 3, 1)
        )
    statistics = Statistics(0.0, 1.0, [0.0], [1.0], 1, 1)
    unseen = replace(clients[2], validation=None)
    return Prepared(root, 40, WINDOW, tuple(clients[:2]), (unseen,), statistics, {})


def test_an_unseen_protocol_takes_the_strength_of_the_nearest(tmp_path: Path) -> None:
    prepared = _prepared(tmp_path)
    assert nearest(prepared.unseen[0], prepared.clients).id == "paper-7"
    table = classical_scores(prepared, {"soft": (-160.0, 240.0)}, names=("tv",))
    strengths = table.where(split="strength").means("client")
    assert strengths["unseen-3"] == strengths["paper-7"] > strengths["paper-1"]


def test_the_nearest_is_found_over_detectors_and_arcs(tmp_path: Path) -> None:
    first, second = _prepared(tmp_path).clients
    short = replace(first, id="short", protocol=replace(first.protocol, arc_deg=200))
    unseen = replace(first, protocol=replace(first.protocol, arc_deg=190, photons=9e4))
    assert nearest(unseen, (first, second, short)).id == "short"


def test_scores_are_rows_of_the_slices_table(tmp_path: Path) -> None:
    prepared = _prepared(tmp_path)
    table = classical_scores(prepared, {"soft": (-160.0, 240.0)}, names=("tv",))
    assert table.distinct("method") == ["Total variation"]
    rows = table.where(client="paper-7", split="test", metric="psnr[-160,240]")
    assert rows.column("slice") == [0, 1, 2]
    data = _data(0.06, seed=1)
    strength = table.where(client="paper-7", split="strength").values[0]
    expected = score_slices(
        denoise("tv", data.low, strength), data.full, data.body, WINDOW, {"s": (-160.0, 240.0)}
    )
    np.testing.assert_allclose(rows.values, expected["psnr[-160,240]"])
    assert len(table.where(client="unseen-3", split="unseen/classical", metric="ssim_body")) == 3
