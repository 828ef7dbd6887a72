"""What fails on a host says which client it was, in which round, and at what."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from torch import nn

from physfed_ray.errors import PhysFedError, sentence
from physfed_ray.experiment import Federation
from physfed_ray.federation.rounds import Rounds
from physfed_ray.federation.serving import evaluate_all
from physfed_ray.federation.spec import Spec
from physfed_ray.methods.fedavg import FedAvg
from physfed_ray.methods.given import RoundInput
from physfed_ray.runtime.inline import InlineRuntime

MakeSpec = Callable[..., Spec]


class Breaking(FedAvg):
    """Breaks for one client in its second round."""

    error: Exception = ValueError("no such axis")

    def begin(self, network: nn.Module, given: RoundInput) -> RoundInput:
        """Break."""
        if given.round == 2 and given.client.id == "c2":
            raise self.error
        return super().begin(network, given)


def rounds_of(spec: Spec) -> Rounds:
    place = InlineRuntime(spec)
    return Rounds(spec, Federation(), place, None, lambda event: None, lambda rows: None)


@pytest.mark.parametrize("error", [ValueError("no such axis"), PhysFedError("no such axis")])
def test_a_failing_client_is_named_with_its_round(make_spec: MakeSpec, error: Exception) -> None:
    spec = make_spec("fedavg", clients=3, rounds=3)
    method = Breaking(spec.method.settings, spec.method.task)
    method.error = error
    with pytest.raises(type(error)) as raised:
        rounds_of(replace(spec, method=method)).run()
    kind = "" if isinstance(error, PhysFedError) else "ValueError: "
    assert sentence(raised.value) == f"while training client c2 in round 2: {kind}no such axis"


def test_a_failing_evaluation_is_named_with_its_client(
    make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = make_spec("fedavg", clients=2, rounds=1)
    rounds = rounds_of(spec)
    rounds.run()

    def fail(*given: Any, **more: Any) -> None:
        raise RuntimeError("no such window")

    monkeypatch.setattr("physfed_ray.federation.client.seen.score", fail)
    with pytest.raises(RuntimeError) as raised:
        evaluate_all(rounds)
    assert sentence(raised.value) == (
        "while evaluating client c1 on validation images, after round 1: RuntimeError: no such "
        "window"
    )
