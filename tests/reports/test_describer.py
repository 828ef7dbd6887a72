"""A slice's description is the same, to the bit, whoever describes it beside whatever else."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from physfed_ray.data.phantom import PhantomSource
from physfed_ray.experiment import Reports
from physfed_ray.reports.base import PartSettings, TextEncoder
from physfed_ray.reports.describer import Describer
from physfed_ray.reports.measured import NOTHING, MeasuredReporter


class Threads(TextEncoder):
    """Embeds every text as the number of threads that torch computes with."""

    name = "threads"
    version = "1"
    tokens = 1
    dim = 1

    def encode(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """See ``TextEncoder``."""
        if "fail" in texts:
            raise RuntimeError("as asked")
        threads = np.full((len(texts), 1, 1), torch.get_num_threads(), np.float32)
        return threads, np.ones((len(texts), 1), np.uint8)


@pytest.fixture(scope="module")
def slices() -> np.ndarray:
    """Return slices of five anatomies, (10, 128, 128), and one of air."""
    source = PhantomSource(5, 2, 3, 128)
    found = [image for patient in source.ids() for image in source.load(patient, None).slices]
    return np.stack([*found, np.full((128, 128), -1000, np.float32)])


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("tokens", [1, 4])
def test_batches_and_threads_change_no_bit(slices, two_threads, tokens):
    reports = Reports.model_validate({"encoder": {"name": "minilm", "tokens": tokens}})
    together = reports.make().describe(slices)
    assert len(together) == len(slices) == len(together.embedding) == len(together.mask)
    assert together.report[-1] == NOTHING
    torch.set_num_threads(1)
    alone = reports.make()
    for start, stop in ((0, 1), (1, 4), (4, 11)):
        part = alone.describe(slices[start:stop])
        assert part.report == together.report[start:stop]
        assert np.array_equal(part.embedding, together.embedding[start:stop])
        assert np.array_equal(part.mask, together.mask[start:stop])


def test_describing_is_reporting_and_embedding(slices):
    describer = Reports().make()
    both = describer.describe(slices[:2])
    assert both.report == describer.report(slices[:2])
    assert np.array_equal(both.embedding, describer.embed(both.report).embedding)


def test_one_thread_within_and_as_many_as_before_after(two_threads):
    describer = Describer(MeasuredReporter(MeasuredReporter.Settings()), Threads(PartSettings()))
    assert describer.embed(["text"]).embedding.item() == 1
    assert torch.get_num_threads() == 2
    with pytest.raises(RuntimeError, match="as asked"):
        describer.embed(["fail"])
    assert torch.get_num_threads() == 2
