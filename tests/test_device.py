"""What a process computes with."""

import pytest
import torch

from physfed_ray.device import torch_threads


def test_threads_are_lent_and_given_back_even_after_an_error() -> None:
    before, seen = torch.get_num_threads(), []

    def fail() -> None:
        with torch_threads(before + 1):
            seen.append(torch.get_num_threads())
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert (seen, torch.get_num_threads()) == ([before + 1], before)
