"""The plain channel: the same memory, the same bits, and nothing refused."""

import pytest
import torch

from physfed_ray.federation.channel.base import Arrival, Cargo, NoSettings, Passage
from physfed_ray.federation.channel.plain import Plain

PLAIN = Plain(NoSettings())


@pytest.mark.parametrize(("weight", "sent"), [(1.0, [1.0, -2.0]), (3.0, [3.0, -6.0])])
def test_the_weighted_update_is_sent_without_a_copy(weight: float, sent: list[float]) -> None:
    update = torch.tensor([1.0, -2.0])
    assert PLAIN.outgoing(update, Passage(1, 2, 0, "a", (0, 1), weight)) is update
    assert update.tolist() == sent


def test_the_mean_is_the_sum_over_the_weights() -> None:
    mean = torch.empty(2)
    arrival = Arrival(1, 2, (0, 1), 4.0, 2, {})
    assert PLAIN.incoming(torch.tensor([6.0, -2.0]), mean, arrival) == {}
    assert mean.tolist() == [1.5, -0.5]
    sent = torch.tensor([1.0, 2.0])
    assert PLAIN.each(sent, arrival) is sent


def test_it_carries_everything_and_costs_nothing_more() -> None:
    cargo = Cargo("m", ("a",), True, False, True, True, True, 3, 0.5)
    assert PLAIN.refuses(cargo) is None
    assert (PLAIN.bytes_up(5, 3), PLAIN.bytes_down(3)) == (20, 0)
