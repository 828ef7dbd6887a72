"""Who trains with which patients: clients, validation and test never share one."""

import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

import numpy as np

from physfed_ray.errors import PhysFedError
from physfed_ray.seeds import generator


class TooFewPatientsError(PhysFedError):
    """The data lack patients that the experiment needs, or lists."""


Wanted = Sequence[str] | int | None


@dataclass(frozen=True)
class Split:
    """Sets of patient ids: training, validation, test and server are disjoint.

    Clients' patients are disjoint as well, unless ``deal`` was told to ``reuse`` them.

    Attributes:
        train: Patients of each client, by client id.
        validation: Patients scanned under every seen protocol, to choose settings by.
        test: Patients scanned under every protocol, seen and unseen.
        unused: Patients that no one was dealt, because every client says what it takes.
        server: Patients whose full dose lies on the server, scanned under every seen protocol.
    """

    train: dict[str, tuple[str, ...]]
    validation: tuple[str, ...]
    test: tuple[str, ...]
    unused: tuple[str, ...]
    server: tuple[str, ...] = ()


def deal(
    slice_counts: Mapping[str, int],
    clients: Mapping[str, Wanted],
    test: int | Sequence[str],
    validation: int | Sequence[str],
    seed: int,
    *,
    reuse: bool = False,
    server: int | Sequence[str] = 0,
) -> Split:
    """Deal patients out: what is listed wins, the rest is drawn by the seed.

    Test, validation and server patients that are only counted are drawn from the patients that
    nobody lists, then those of the clients that ask for a number. Clients that say nothing share
    what remains. Both groups are balanced by slices: the longest patients first, each to the client
    that has the fewest slices so far.

    Args:
        slice_counts: Usable slices of each patient, by patient id.
        clients: By client id, the patients that it lists, the number that it is to be dealt, or
            None for a share of what remains.
        test: Number of test patients, or their ids.
        validation: Number of validation patients, or their ids.
        seed: Decides which patients are drawn, and breaks ties.
        reuse: Where there are too few patients, let clients have the same ones; each patient is
            then dealt to equally many. Clients may also list the same ones.
        server: Number of patients of the server, or their ids; who is tested is the same without.

    Raises:
        TooFewPatientsError: A listed patient is unknown, or there are too few patients.
        PhysFedError: A patient is listed twice.
    """
    groups = {f"clients.{client}.patients": ids for client, ids in clients.items()}
    held = {"test": test, "validation": validation, "server": server}
    groups |= {f"data.{name}_patients": ids for name, ids in held.items()}
    lists = {group: ids for group, ids in groups.items() if isinstance(ids, Sequence)}
    listed = listed_once(lists, slice_counts, reuse)
    rng = generator(seed, "split")
    free = [patient for patient in slice_counts if patient not in listed]
    free = [free[i] for i in rng.permutation(len(free))]
    counted = {name: ids if isinstance(ids, int) else 0 for name, ids in held.items()}
    wanted = {c: ids for c, ids in clients.items() if ids is None or isinstance(ids, int)}
    _check_enough(len(slice_counts), len(listed), counted, wanted, reuse)
    drawn: dict[str, tuple[str, ...]] = {}
    rest = free
    for name, number in counted.items():
        ids = held[name]
        drawn[name] = tuple(ids if isinstance(ids, Sequence) else rest[:number])
        rest = rest[number:]
    if sum(n or 1 for n in wanted.values()) > len(rest):
        dealt = _deal_in_turn(rest, wanted, rng)
    else:
        dealt = _deal_once(rest, wanted, slice_counts)
    order = {patient: i for i, patient in enumerate(slice_counts)}
    trained = {patient for ids in dealt.values() for patient in ids}
    train = {client: sorted(ids, key=order.__getitem__) for client, ids in dealt.items()}
    return Split(
        train={
            client: tuple(ids if isinstance(ids, Sequence) else train[client])
            for client, ids in clients.items()
        },
        **drawn,
        unused=tuple(patient for patient in rest if patient not in trained),
    )


def listed_once(
    groups: Mapping[str, Sequence[str]], known: Iterable[str], reuse: bool
) -> dict[str, str]:
    """Return the group of each listed patient, or refuse an unknown or doubly listed one."""
    known = list(known)
    owner: dict[str, str] = {}
    for group, ids in groups.items():
        for patient in ids:
            if patient not in known:
                near = get_close_matches(patient, known, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"there are {len(known)} patients."
                raise TooFewPatientsError(
                    f"{group} lists {patient!r}, which the data do not have: {hint}"
                )
            other = owner.setdefault(patient, group)
            train = group.startswith("clients.") and other.startswith("clients.")
            if (other != group and not (reuse and train)) or ids.count(patient) > 1:
                raise PhysFedError(
                    f"{group} lists {patient!r}, which {other} lists too; "
                    "a patient may be used only once, so take it out of one of them."
                )
    return owner


def _check_enough(
    patients: int,
    listed: int,
    counted: Mapping[str, int],
    wanted: Mapping[str, int | None],
    reuse: bool,
) -> None:
    """Refuse too few patients; with ``reuse`` no client may have the same one twice."""
    numbers = [n or 1 for n in wanted.values()]
    train = max(numbers, default=0) if reuse else sum(numbers)
    needed = listed + sum(counted.values()) + train
    if needed > patients:
        on_server = f"{counted['server']} for the server, " if counted["server"] else ""
        remedy = "" if reuse else ", or data.reuse_patients: true, so that clients share patients"
        raise TooFewPatientsError(
            f"the data have {patients} patients but {needed} are needed ({listed} listed, "
            f"{counted['test']} for the test, {counted['validation']} for validation, "
            f"{on_server}{train} for {len(wanted)} clients that are dealt theirs); give more "
            f"patients, fewer clients or smaller data.test_patients{remedy}."
        )


def _deal_once(
    patients: Sequence[str], wanted: Mapping[str, int | None], slice_counts: Mapping[str, int]
) -> dict[str, list[str]]:
    """Give the first patients to clients that want a number, and share the others out."""
    numbers = {client: n for client, n in wanted.items() if n is not None}
    sharers = {client: len(patients) for client, n in wanted.items() if n is None}
    total = sum(numbers.values())
    return _balance(patients[:total], slice_counts, numbers) | _balance(
        patients[total:], slice_counts, sharers
    )


def _deal_in_turn(
    patients: Sequence[str], wanted: Mapping[str, int | None], rng: np.random.Generator
) -> dict[str, list[str]]:
    """Deal each client the patients that the fewest clients have yet, at random among those."""
    uses = np.zeros(len(patients))
    dealt = {}
    for client, number in wanted.items():
        chosen = np.lexsort((rng.random(len(patients)), uses))[: number or 1]
        uses[chosen] += 1
        dealt[client] = [patients[i] for i in chosen]
    return dealt


def _balance(
    patients: Iterable[str], slice_counts: Mapping[str, int], room: Mapping[str, int]
) -> dict[str, list[str]]:
    """Deal the longest patients first to whoever has the fewest slices, then fewest patients.

    Args:
        patients: Those to deal out.
        slice_counts: Slices of each.
        room: How many patients each client takes at most.
    """
    dealt: dict[str, list[str]] = {client: [] for client in room}
    names = list(room)
    queue = [(0, 0, position) for position in range(len(names))]
    for patient in sorted(patients, key=lambda patient: -slice_counts[patient]):
        if not queue:
            break
        load, count, position = heapq.heappop(queue)
        client = names[position]
        dealt[client].append(patient)
        if count + 1 < room[client]:
            heapq.heappush(queue, (load + slice_counts[patient], count + 1, position))
    return dealt
