"""Policies for a scanner that nobody trained on: what is taken, what is refused, what is said."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from physfed_ray.ct.protocol import PRESETS
from physfed_ray.errors import PhysFedError
from physfed_ray.serving.trained import load_run
from tests.serving.conftest import Trained

Train = Callable[..., Trained]


def test_policies_and_what_they_say(train: Train) -> None:
    trained = train("scan_physfed")
    run = load_run(trained.root)
    route = trained.results.routes["unseen-2"]
    served = run.denoiser(protocol="unseen-2").choice
    assert (served.policy, served.client) == ("pvqs", run.clients[route.client])
    assert served.cosine == route.cosine
    assert str(served) == f"PVQS: the decoder of client {served.client}, cosine {route.cosine:.4f}"
    assert run.denoiser(protocol=PRESETS["unseen-2"]).choice.cosine == route.cosine
    near = run.denoiser(protocol="paper-2", policy="nearest_protocol").choice
    assert (near.client, near.distance) == ("c-paper-2", 0.0)
    assert "nearest at distance 0.0000" in str(near)
    assert str(run.denoiser("c-paper-1").choice) == "the model of client c-paper-1"
    with pytest.raises(PhysFedError, match=r"'shared' is not possible: SCAN-PhysFed keeps a part"):
        run.denoiser(protocol="unseen-2", policy="shared")


@pytest.mark.parametrize("method", ["scan_physfed", "hyperfed", "fedavg"])
def test_a_model_serves_detectors_and_arcs_that_its_g_holds_and_refuses_others(
    train: Train, method: str
) -> None:
    short = replace(PRESETS["unseen-2"], arc_deg=220)
    trained = train(method, unseen={"short": short})
    run = load_run(trained.root)
    choice = run.denoiser(protocol="short").choice
    assert choice.g.shape == (8,)
    assert run.denoiser("c-paper-1").choice.g[7] == 1
    if method == "scan_physfed":
        assert choice.cosine == trained.results.routes["short"].cosine
    other = replace(short, arc_deg=200)
    run.denoiser(protocol=other)
    with pytest.raises(PhysFedError, match="detector=arc cannot be told to this model") as refusal:
        run.denoiser(protocol=replace(other, detector="arc"))
    assert "\n" not in str(refusal.value)


def test_without_a_codebook_pvqs_is_refused_and_the_shared_network_serves(train: Train) -> None:
    run = load_run(train("fedavg").root)
    assert run.codes is None
    choice = run.denoiser(protocol="paper-8").choice
    assert (choice.policy, choice.client, str(choice)) == ("shared", None, "the shared network")
    with pytest.raises(PhysFedError, match=r"'pvqs' is not possible: FedAvg has no codebook"):
        run.denoiser(protocol="paper-8", policy="pvqs")
    with pytest.raises(PhysFedError, match="unknown policy 'best'; there are: shared, pvqs"):
        run.denoiser(protocol="paper-8", policy="best")  # type: ignore[arg-type]
