"""Streams depend on what they are for, on all of it, and on nothing else."""

from hypothesis import given
from hypothesis import strategies as st

from physfed_ray.seeds import derive_seed, generator

PARTS = st.lists(
    st.integers() | st.text(st.characters(codec="utf-8", exclude_characters="\x1f"), max_size=5)
)


@given(PARTS, PARTS)
def test_other_parts_give_another_seed(one: list[int | str], other: list[int | str]) -> None:
    assert (derive_seed(*one) == derive_seed(*other)) == (one == other)
    assert 0 <= derive_seed(*one) < 2**63


def test_a_number_is_not_its_digits_and_order_counts() -> None:
    assert len({derive_seed(1, "2"), derive_seed("1", 2), derive_seed("2", 1)}) == 3


def test_the_seed_of_today_is_that_of_all_former_runs() -> None:
    assert derive_seed(3, 1, "c1", "batches") == 8669059800698418048
    assert generator(3, 1, "c1", "batches").random() == generator(3, 1, "c1", "batches").random()
