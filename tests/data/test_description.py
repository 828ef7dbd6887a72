"""Every slice is described once, whatever is interrupted, damaged or changed meanwhile."""

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from physfed_ray.data.description import DescribedSlices, Slice, describe_inline, read_slices
from physfed_ray.data.plan import plan
from physfed_ray.data.prepare import prepare
from physfed_ray.data.prepared import Prepared
from physfed_ray.data.store import read_client_data, read_scans
from physfed_ray.experiment import Experiment, Reports
from physfed_ray.reports.cache import DescriptionCache
from tests.reports.tiny_models import make_tiny_llava

SLICES = 3 * 4


def make_experiment(cache: Path, **reports: Any) -> Experiment:
    """Return 1 client with 4 slices in each split."""
    protocol = {
        "views": 24,
        "bins": 400,
        "pixel_mm": 1.0,
        "bin_mm": 1.6,
        "source_mm": 350,
        "detector_mm": 350,
        "photons": 1e5,
    }
    data = {
        "source": {"phantom": {"patients": 3, "slices": 4}},
        "image_size": 48,
        "test_patients": 1,
        "validation_patients": 1,
        "cache": str(cache),
    }
    return Experiment.model_validate(
        {
            "name": "tiny",
            "data": data,
            "clients": [{"id": "a", "protocol": protocol}],
            "reports": {"pool": {"max_batch": 5}} | reports,
            "method": {"name": "fedavg"},
        }
    )


class Counted:
    """Describes in this process, and keeps what it was asked for."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.slices: list[Slice] = []
        self._stop_after = stop_after

    def __call__(self, reports: Reports, slices: Sequence[Slice]) -> Iterator[DescribedSlices]:
        """Describe."""
        self.slices = list(slices)
        yield from islice(describe_inline(reports, slices), self._stop_after)
        if self._stop_after is not None:
            raise KeyboardInterrupt


def test_all_slices_are_described_in_batches(tmp_path: Path) -> None:
    events: list[dict[str, Any]] = []
    counted = Counted()
    prepared = prepare(make_experiment(tmp_path), run_reports=counted, progress=events.append)
    assert len(counted.slices) == SLICES
    done = [event["done"] for event in events if event["event"] == "reports"]
    assert done == [0, 5, 10, 12]
    again = Counted()
    assert prepare(make_experiment(tmp_path), run_reports=again) == prepared
    assert again.slices == []


def test_the_reporter_sees_what_the_scanner_shows_and_not_the_network_s_window(
    tmp_path: Path,
) -> None:
    todo = plan(make_experiment(tmp_path))
    prepare(make_experiment(tmp_path))
    path = todo.path_of(todo.shards[0])
    scans = read_scans(path)
    (hu,) = read_slices([Slice(scans.image[1], path, 1)])
    assert hu.dtype == np.float32
    assert np.array_equal(hu, scans.hu[1])
    low, high = todo.settings.window_hu
    np.testing.assert_allclose(
        scans.low[1], np.clip((hu - low) / (high - low), 0, 1), atol=0.6 / (high - low)
    )


def test_an_interrupted_description_loses_only_the_batch_in_flight(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        prepare(make_experiment(tmp_path), run_reports=Counted(stop_after=2))
    rest = Counted()
    resumed = prepare(make_experiment(tmp_path), run_reports=rest)
    assert len(rest.slices) == SLICES - 10
    whole = prepare(make_experiment(tmp_path / "other"))
    assert contents(resumed) == contents(whole)


def contents(prepared: Prepared) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in prepared.root.rglob("*.arrow")}


def test_a_batch_of_another_size_gives_the_same_bytes(tmp_path: Path) -> None:
    one = prepare(make_experiment(tmp_path / "one", pool={"max_batch": 1}))
    assert contents(one) == contents(prepare(make_experiment(tmp_path / "five")))


def test_another_encoder_keeps_the_reports(tmp_path: Path) -> None:
    before = prepare(make_experiment(tmp_path))
    counted = Counted()
    encoder = {"name": "minilm", "tokens": 4}
    after = prepare(make_experiment(tmp_path, encoder=encoder), run_reports=counted)
    old, new = (read_client_data(p.root / "train/a.arrow") for p in (before, after))
    assert {s.report for s in counted.slices} >= set(old.report)
    assert new.report == old.report
    assert new.embedding.shape == (4, 4, old.embedding.shape[-1])


def test_a_damaged_file_of_the_cache_is_made_again(tmp_path: Path) -> None:
    experiment = make_experiment(tmp_path)
    prepared = prepare(experiment)
    before = contents(prepared)
    for path in (prepared.root / "train/a.arrow", *(tmp_path / "reports").rglob("*.arrow")):
        path.write_bytes(path.read_bytes()[:100])
    (prepared.root / "train/a.arrow").unlink()
    counted = Counted()
    assert contents(prepare(experiment, run_reports=counted)) == before
    assert len(counted.slices) == SLICES


def test_a_text_of_two_images_is_embedded_once(tmp_path: Path) -> None:
    cache = DescriptionCache(tmp_path, Reports().make())
    hu = np.zeros((2, 48, 48), np.float32)
    described = Reports().make().describe(hu)
    cache.add(["first"], Reports().make().describe(hu[:1]))
    assert cache.missing(["first", "second"]) == {"second": None}
    cache.add(["first", "second"], described)
    assert cache.missing(["first", "second"]) == {}
    one, two = cache.get(["second", "first"]).embedding
    assert np.array_equal(one, two)


def test_another_prompt_writes_every_report_anew(tmp_path: Path) -> None:
    model = str(make_tiny_llava(tmp_path / "model"))
    reporter = {"name": "mllm", "model": model, "max_new_tokens": 4}
    first = prepare(make_experiment(tmp_path, reporter=reporter))
    again, changed = Counted(), Counted()
    assert prepare(make_experiment(tmp_path, reporter=reporter), run_reports=again) == first
    assert again.slices == []
    reporter |= {"prompt": "Which organ is this?"}
    second = prepare(make_experiment(tmp_path, reporter=reporter), run_reports=changed)
    assert [s.report for s in changed.slices] == [None] * SLICES
    assert second.root != first.root
