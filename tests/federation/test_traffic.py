"""What is said of the traffic beforehand is what a run then measures, for every method."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from physfed_ray.cost.step_cost import network_sizes
from physfed_ray.federation.spec import Spec
from physfed_ray.federation.traffic import expected_bytes
from physfed_ray.methods.registry import METHODS
from tests.federation.channel.quantised import Quantised, QuantisedSettings
from tests.federation.test_rounds import Run

MakeSpec = Callable[..., Spec]


def expected(spec: Spec, participants: int) -> tuple[int, int]:
    """Return what all participants send and receive in a round."""
    shared, _, codes = network_sizes(spec.method)
    return expected_bytes(spec.method, spec.channel, shared, codes, participants)


@pytest.mark.parametrize("name", list(METHODS))
def test_a_run_measures_what_was_expected(make_spec: MakeSpec, name: str) -> None:
    spec = make_spec(name, clients=5, unseen=0)
    run = Run(spec, participation=0.6).go()
    participants = 1 if spec.method.pooled else 3
    up, down = expected(spec, participants)
    measured = run.row("bytes_up")[3], run.row("bytes_down")[3]
    if spec.method.compresses:
        assert 0.2 * up < measured[0] < up
        assert 0.2 * down < measured[1] < down
    else:
        assert measured == (up, down)
    assert (up, down) == (0, 0) or name not in ("pooled", "local")


@pytest.mark.parametrize("name", list(METHODS))
def test_declared_arrays_are_those_that_are_sent(make_spec: MakeSpec, name: str) -> None:
    spec = make_spec(name, clients=3, unseen=0, rounds=1)
    sent: list[dict[str, np.ndarray]] = []
    run = Run(spec)
    aggregate = run.runtime.server

    def watched(call: str, *arguments: object) -> object:
        if call == "aggregate":
            sent.extend(arguments[2].values())  # type: ignore[attr-defined]
        return aggregate(call, *arguments)

    run.runtime.server = watched  # type: ignore[method-assign]
    run.go()
    assert set(spec.method.upload_like()) == set(spec.method.uploads)
    for upload in sent:
        assert kinds(upload) == kinds(spec.method.upload_like())
    extras = run.runtime.server("broadcast")[1]
    own = {n: a for n, a in extras.items() if n != "codes" and not n.startswith("published.")}
    assert kinds(own) == kinds(spec.method.extras_like(len(sent)))


def kinds(arrays: dict[str, np.ndarray]) -> dict[str, tuple[object, ...]]:
    return {name: (array.shape, array.dtype) for name, array in arrays.items()}


def test_a_channel_adds_its_own(make_spec: MakeSpec) -> None:
    spec = make_spec("scan_physfed", clients=3, unseen=0, rounds=2)
    spec = replace(spec, channel=Quantised(QuantisedSettings()))
    run = Run(spec).go()
    assert expected(spec, 3) == (run.row("bytes_up")[2], run.row("bytes_down")[2])


def test_sizes_that_are_only_counted_take_no_memory(make_spec: MakeSpec) -> None:
    spec = make_spec("fedmri", clients=3, unseen=0)
    array = spec.method.extras_like(10**6)["encoders"]
    assert array.nbytes == 10**6 * 4 * network_sizes(spec.method)[0]
    assert array.strides == (0, 0)
