"""Plain values from which anybody can compute what the network is told of a scanner."""

import json
import math

import numpy as np
import pytest

from physfed_ray.ct.protocol import PRESETS, normalisation
from physfed_ray.serving.export.values import plain_values
from tests.serving.export.conftest import denoiser_of

SCALES = {
    "log2": math.log2,
    "log10": math.log10,
    "/256": lambda value: value / 256,
    "none": float,
}


def test_g_follows_from_the_values_alone() -> None:
    values = json.loads(json.dumps(plain_values(denoiser_of("scan_physfed"), 7)))
    g = [
        (SCALES[entry["scale"]](values["protocol"][entry["name"]]) - entry["low"])
        / (entry["high"] - entry["low"])
        for entry in values["g"]
    ]
    np.testing.assert_allclose(g, values["choice"]["g"], rtol=1e-6)
    np.testing.assert_allclose(g, PRESETS["paper-1"].normalised(), rtol=1e-6)
    assert (values["round"], values["card"]["window_hu"]) == (7, [-1000, 2000])
    assert values["card"]["statistics"]["input_mean"] == pytest.approx(0.4)


def test_further_fields_of_a_protocol_are_named() -> None:
    *_, arc = normalisation(("detector", "arc_deg"))
    assert arc == {"name": "arc_deg", "scale": "/360", "low": 0.0, "high": 1.0}
