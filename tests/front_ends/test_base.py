"""What a front end is by default: a network that reads the scanner's own FBP."""

import numpy as np
import pytest

from physfed_ray.ct.protocol import PRESETS
from physfed_ray.ct.simulation import Simulation
from physfed_ray.front_ends.base import FrontEnd, FrontEndSettings, Measured, Scanners

PROTOCOL, SIMULATION = PRESETS["paper-1"], Simulation(32)


class Plain(FrontEnd):
    """Nothing of its own."""

    name, title, paper = "plain", "Plain", "none"


def test_nothing_is_prepared_chosen_or_learned() -> None:
    plain, empty = Plain(FrontEndSettings()), np.zeros((0, 2, 2), np.float32)
    assert not plain.prepares
    assert not plain.chooses
    assert plain.choose(Measured(empty, empty, PROTOCOL, SIMULATION, (0, 1))) == {}
    assert plain.module(Scanners((PROTOCOL,), SIMULATION, (0, 1))) is None
    with pytest.raises(NotImplementedError, match="'plain' makes no images beforehand"):
        plain.reconstruct(empty, PROTOCOL, SIMULATION, {})
