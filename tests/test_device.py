"""What a process computes with."""

import pytest
import torch

from physfed_ray.device import enough_memory, torch_threads
from physfed_ray.errors import PhysFedError


def test_threads_are_lent_and_given_back_even_after_an_error() -> None:
    before, seen = torch.get_num_threads(), []

    def fail() -> None:
        with torch_threads(before + 1):
            seen.append(torch.get_num_threads())
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert (seen, torch.get_num_threads()) == ([before + 1], before)


def test_a_gpu_without_room_is_one_sentence() -> None:
    with (
        pytest.raises(PhysFedError, match=r"host-0:c1 ran out of its share .*gpus_per_host"),
        enough_memory("host-0:c1"),
    ):
        raise torch.OutOfMemoryError("CUDA out of memory")
