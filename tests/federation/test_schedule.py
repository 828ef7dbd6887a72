"""Who trains when: participation, stragglers, staleness; the same from wherever it is asked."""

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from physfed_ray.ct.protocol import PRESETS
from physfed_ray.experiment import Federation
from physfed_ray.federation.schedule import Plan, PlannedTurn, Schedule, weight_of_staleness
from physfed_ray.methods.given import ClientInfo
from physfed_ray.seeds import generator

STEPS = 4


def schedule(
    speeds: Sequence[float], sizes: Sequence[int] | None = None, seed: int = 1, **settings: object
) -> Schedule:
    """Return the schedule of clients that make ``STEPS`` steps a turn."""
    counts = sizes or [4] * len(speeds)
    infos = [
        ClientInfo(i, f"c{i}", PRESETS["paper-1"], slices, speed)
        for i, (slices, speed) in enumerate(zip(counts, speeds, strict=True))
    ]
    return Schedule(Federation(**settings), seed, infos, [STEPS] * len(speeds))


def plans(rounds: int, *arguments: object, **settings: object) -> list[Plan]:
    made = schedule(*arguments, **settings)  # type: ignore[arg-type]
    return [made.plan(number) for number in range(1, rounds + 1)]


def clients_of(plan: Plan) -> list[int]:
    return [turn.client for turn in plan.turns]


def in_flight(made: Sequence[Plan]) -> list[set[PlannedTurn]]:
    """Return the turns that have begun by the end of each round and end in a later one."""
    after = [(n, turn) for n, plan in enumerate(made, 1) for turn in plan.turns]
    return [
        {turn for n, turn in after if n > number and turn.base < number}
        for number in range(1, len(made) + 1)
    ]


KINDS: dict[str, dict[str, object]] = {
    "everybody": {},
    "drawn": {"participation": 0.4},
    "by size": {"participation": 0.4, "sampling": "by_size"},
    "come and go": {"participation": 0.4, "availability": {"on_rounds": 3, "off_rounds": 2}},
    "dropped": {"deadline_steps": 5, "quorum": 0.1},
    "merged": {"participation": 0.6, "deadline_steps": 5, "late": "merge"},
    "async": {"schedule": "async", "participation": 0.5, "buffer": 3},
}
SPEEDS = [1, 0.7, 0.35, 1.5, 0.1, 1, 2, 0.9, 1, 0.5]


@pytest.mark.parametrize("settings", KINDS.values(), ids=KINDS)
def test_a_plan_depends_on_its_number_and_the_seed_alone(settings: dict[str, object]) -> None:
    in_order = plans(9, SPEEDS, **settings)
    from_the_end = schedule(SPEEDS, **settings)
    assert [from_the_end.plan(number) for number in range(9, 0, -1)] == in_order[::-1]
    assert plans(4, SPEEDS, **settings) == in_order[:4]


@pytest.mark.parametrize("kind", [k for k in KINDS if k not in ("everybody", "dropped")])
def test_another_seed_draws_others(kind: str) -> None:
    assert plans(9, SPEEDS, seed=2, **KINDS[kind]) != plans(9, SPEEDS, **KINDS[kind])


@pytest.mark.parametrize("settings", KINDS.values(), ids=KINDS)
def test_every_round_is_consistent(settings: dict[str, object]) -> None:
    made = plans(40, SPEEDS, **settings)
    assert all(earlier.time <= later.time for earlier, later in pairwise(made))
    for number, plan in enumerate(made, 1):
        counted = clients_of(plan)
        assert counted == sorted(set(counted))
        assert not set(counted) & set(plan.missing)
        assert all(0 <= turn.base < number for turn in plan.turns)
        assert all(base < number for base in plan.bases)
    for plan, flying in zip(made[:10], in_flight(made), strict=False):  # rounds 11 to 40 follow
        assert {turn.base for turn in flying} == plan.bases


@pytest.mark.parametrize(
    ("participation", "count"), [(1.0, 10), (0.5, 5), (0.3, 3), (0.31, 4), (0.01, 1)]
)
def test_the_share_of_the_clients_takes_part(participation: float, count: int) -> None:
    for number, plan in enumerate(plans(5, [1] * 10, participation=participation), 1):
        assert len(plan.turns) == count
        assert all(turn.base == number - 1 for turn in plan.turns)
        assert (plan.missing, plan.bases, plan.time) == ({}, frozenset(), STEPS * number)


def test_uniform_draws_are_those_of_the_first_version() -> None:
    """Runs that were made before schedules existed can be resumed."""
    for number, plan in enumerate(plans(6, [1] * 9, participation=0.4, seed=5), 1):
        drawn = generator(5, number, "participants").choice(9, 4, replace=False)
        assert clients_of(plan) == sorted(int(c) for c in drawn)


def frequencies(rounds: int, sampling: str) -> np.ndarray:
    sizes = [10, 20, 40, 80, 0]
    made = plans(rounds, [1] * 5, sizes, participation=0.2, sampling=sampling)
    drawn = Counter(client for plan in made for client in clients_of(plan))
    return np.array([drawn[c] for c in range(5)]) / rounds


def test_by_size_draws_in_proportion_to_the_slices() -> None:
    expected = np.array([10, 20, 40, 80, 1]) / 151  # one slice at least
    np.testing.assert_allclose(frequencies(3000, "by_size"), expected, atol=0.035)  # 4 sigma
    np.testing.assert_allclose(frequencies(3000, "uniform"), 0.2, atol=0.03)


def test_only_clients_that_can_be_reached_are_drawn() -> None:
    settings = {"availability": {"on_rounds": 2, "off_rounds": 4}}
    everybody = [set(clients_of(plan)) for plan in plans(60, [1] * 6, **settings)]
    drawn = plans(60, [1] * 6, participation=0.5, **settings)
    for there, plan in zip(everybody, drawn, strict=True):
        assert set(clients_of(plan)) <= there
        assert len(plan.turns) == min(3, len(there))
    assert set() in everybody
    assert 1.2 < np.mean([len(there) for there in everybody]) < 2.8  # a third of six


def test_an_asynchronous_client_starts_only_where_it_can_be_reached() -> None:
    settings = {"schedule": "async", "buffer": 2, "availability": {"on_rounds": 2, "off_rounds": 4}}
    there = [
        set(clients_of(plan)) for plan in plans(60, [1] * 6, availability=settings["availability"])
    ]
    for plan in plans(60, [1] * 6, **settings):
        assert all(turn.client in there[turn.base] for turn in plan.turns)  # round base + 1


def test_a_client_that_misses_the_deadline_is_left_out_and_told_why() -> None:
    for number, plan in enumerate(plans(3, [1, 0.5, 0.8], deadline_steps=5, quorum=0.5), 1):
        assert clients_of(plan) == [0, 2]  # 4, 8 and 5 of 5
        assert plan.missing == {1: "late: its 4 steps at speed 0.5 take 8, the deadline is 5"}
        assert plan.time == 5 * number  # the others wait until then
        assert plan.bases == frozenset()


def test_a_late_update_arrives_once_in_the_round_of_its_end() -> None:
    made = plans(7, [1, 0.5, 0.3], deadline_steps=4, late="merge")  # 1, 2 and 4 rounds
    counted = [[(turn.client, turn.base) for turn in plan.turns] for plan in made]
    assert counted == [
        [(0, 0)],
        [(0, 1), (1, 0)],
        [(0, 2)],
        [(0, 3), (1, 2), (2, 0)],
        [(0, 4)],
        [(0, 5), (1, 4)],
        [(0, 6)],
    ]
    assert [sorted(plan.bases) for plan in made] == [[0], [0], [0, 2], [], [4], [4], [4, 6]]
    assert all(not plan.missing for plan in made)


def test_rounding_makes_nobody_late() -> None:
    made = schedule([0.7], deadline_steps=1, late="merge", max_staleness=99)
    made._duration = [21 / 0.7]  # 30.000000000000004
    assert [len(made.plan(number).turns) for number in range(1, 31)] == [0] * 29 + [1]


def test_an_update_that_would_be_too_old_is_not_waited_for() -> None:
    settings = {"deadline_steps": 4, "late": "merge"}
    for plan in plans(6, [1, 0.3], max_staleness=2, **settings):  # 3 rounds late
        assert clients_of(plan) == [0]
        assert list(plan.missing) == [1]
        assert plan.bases == frozenset()
    assert (plans(4, [1, 0.3], max_staleness=3, **settings))[3].turns == (
        PlannedTurn(0, 3),
        PlannedTurn(1, 0),
    )


def test_the_longest_turn_ends_a_round_without_a_deadline() -> None:
    assert [plan.time for plan in plans(2, [1, 0.5])] == [8, 16]
    assert [plan.time for plan in plans(2, [1, 0.5], deadline_steps=20)] == [8, 16]


def asynchronous(rounds: int, speeds: Sequence[float], **settings: object) -> list[Plan]:
    return plans(rounds, speeds, schedule="async", **settings)


def test_equal_clients_with_a_buffer_for_all_are_fedavg() -> None:
    made = asynchronous(5, [2] * 6, buffer=6)
    assert [plan.turns for plan in made] == [plan.turns for plan in plans(5, [2] * 6)]
    assert [plan.time for plan in made] == [2, 4, 6, 8, 10]


def test_a_buffer_of_updates_makes_a_round_and_the_share_trains_at_once() -> None:
    made = asynchronous(30, SPEEDS, buffer=3, participation=0.5)
    assert {len(plan.turns) for plan in made} == {3}
    for flying in in_flight(made)[:-10]:
        assert len(flying) <= 5
        assert len({turn.client for turn in flying}) == len(flying)
    assert max(map(len, in_flight(made))) == 5 - 1  # one ended the round


def test_a_buffer_larger_than_the_federation_takes_everybody_once() -> None:
    for plan in asynchronous(4, [1, 0.5, 3], buffer=10):
        assert clients_of(plan) == [0, 1, 2]


def test_faster_clients_count_more_often_and_slow_ones_are_staler() -> None:
    made = asynchronous(400, [4, 2, 1, 1], buffer=1, max_staleness=100)
    turns = [(n - 1 - turn.base, turn.client) for n, p in enumerate(made, 1) for turn in p.turns]
    counts = Counter(client for _, client in turns)
    np.testing.assert_allclose([counts[c] / 400 for c in range(4)], [4 / 8, 2 / 8, 1 / 8, 1 / 8],
                               atol=0.02)  # fmt: skip
    ages = [np.mean([age for age, client in turns if client == c]) for c in range(4)]
    np.testing.assert_allclose(ages, [1, 3, 7, 7], atol=0.3)  # updates of others meanwhile
    assert made[-1].time == pytest.approx(400 / 8 * STEPS, rel=0.02)  # 8 steps a unit of time


def test_updates_that_are_too_old_are_left_out() -> None:
    made = asynchronous(120, [4, 2, 1, 0.1], buffer=1, max_staleness=10)
    assert all(3 not in clients_of(plan) for plan in made)
    reasons = [reason for plan in made for reason in plan.missing.values()]
    assert reasons
    assert all("rounds old, more than federation.max_staleness (10)" in r for r in reasons)


def test_staleness_weighs_as_in_fedbuff() -> None:
    made = schedule([1, 0.3], deadline_steps=4, late="merge", staleness_exponent=0.5)
    assert made.stale
    assert [made.factor(4, turn) for turn in made.plan(4).turns] == [1.0, 0.5]  # (1 + 3)^-0.5
    assert weight_of_staleness(3, 0.0) == 1.0
    assert weight_of_staleness(2, 1.0) == pytest.approx(1 / 3)
    assert schedule([1], schedule="async").stale
    assert not schedule([1], deadline_steps=1).stale


KEYS = st.fixed_dictionaries(
    {"participation": st.floats(0.05, 1), "max_staleness": st.integers(0, 5)},
    optional={
        "sampling": st.just("by_size"),
        "availability": st.fixed_dictionaries(
            {"on_rounds": st.floats(1, 5), "off_rounds": st.floats(1, 5)}
        ),
    },
)
SYNC = st.fixed_dictionaries(
    {}, optional={"deadline_steps": st.floats(1, 20), "late": st.just("merge")}
).filter(lambda keys: "late" not in keys or "deadline_steps" in keys)
ASYNC = st.builds(lambda buffer: {"schedule": "async", "buffer": buffer}, st.integers(1, 6))


@given(
    KEYS,
    SYNC | ASYNC,
    st.lists(st.sampled_from([0.1, 0.35, 0.7, 1.0, 2.0]), min_size=1, max_size=12),
    st.integers(0, 99),
)
def test_any_schedule_keeps_its_promises(
    keys: dict[str, object], kind: dict[str, object], speeds: list[float], seed: int
) -> None:
    settings = Federation(**keys, **kind)
    made = plans(12, speeds, seed=seed, **keys, **kind)
    times = [plan.time for plan in made]
    assert times == sorted(times)
    for number, plan in enumerate(made, 1):
        clients = clients_of(plan)
        assert clients == sorted(set(clients))
        assert not set(clients) & set(plan.missing)
        ages = [number - 1 - turn.base for turn in plan.turns]
        assert all(0 <= age <= settings.max_staleness for age in ages)
        if settings.schedule == "sync" and settings.late == "drop":
            assert not any(ages)
            assert not plan.bases
        assert all(0 <= base < number for base in plan.bases)
        assert {turn.base for turn in in_flight(made)[number - 1]} <= plan.bases
    again = schedule(speeds, seed=seed, **keys, **kind)
    assert again.plan(12) == made[-1]
    assert [again.plan(n) for n in range(1, 13)] == made
