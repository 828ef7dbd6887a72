"""Who trains with which patients: clients, validation and test never share one."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from physfed_ray.errors import PhysFedError
from physfed_ray.seeds import generator


@dataclass(frozen=True)
class Split:
    """Disjoint sets of patient ids.

    Attributes:
        train: Patients of each client, by client id.
        validation: Patients scanned under every seen protocol, to choose settings by.
        test: Patients scanned under every protocol, seen and unseen.
        unused: Patients that no one was dealt, because every client lists its own.
    """

    train: dict[str, tuple[str, ...]]
    validation: tuple[str, ...]
    test: tuple[str, ...]
    unused: tuple[str, ...]


def deal(
    slice_counts: Mapping[str, int],
    clients: Mapping[str, Sequence[str] | None],
    test: int | Sequence[str],
    validation: int | Sequence[str],
    seed: int,
) -> Split:
    """Deal patients out: what is listed wins, the rest is drawn by the seed.

    Test and validation patients that are only counted are drawn from the patients that nobody
    lists. Clients without a list share what remains, balanced by slices: the longest patients
    first, each to the client that has the fewest slices so far.

    Args:
        slice_counts: Usable slices of each patient, by patient id.
        clients: Listed patients of each client by client id, None where they are to be dealt.
        test: Number of test patients, or their ids.
        validation: Number of validation patients, or their ids.
        seed: Decides which patients are drawn, and breaks ties.

    Raises:
        PhysFedError: A listed patient is unknown or listed twice, or there are too few patients.
    """
    groups = {f"clients.{client}.patients": ids for client, ids in clients.items() if ids}
    groups |= {
        f"data.{name}_patients": ids
        for name, ids in (("test", test), ("validation", validation))
        if not isinstance(ids, int)
    }
    listed = _listed_once(groups, slice_counts)
    rng = generator(seed, "split")
    free = [patient for patient in slice_counts if patient not in listed]
    free = [free[i] for i in rng.permutation(len(free))]
    receivers = [client for client, ids in clients.items() if not ids]
    counted = [ids if isinstance(ids, int) else 0 for ids in (test, validation)]
    _check_enough(len(slice_counts), len(listed), counted, len(receivers))
    drawn_test, drawn_validation = free[: counted[0]], free[counted[0] : sum(counted)]
    rest = free[sum(counted) :]
    dealt = _balance(rest, slice_counts, receivers)
    order = {patient: i for i, patient in enumerate(slice_counts)}
    return Split(
        train={
            client: tuple(ids) if ids else tuple(sorted(dealt[client], key=order.__getitem__))
            for client, ids in clients.items()
        },
        validation=tuple(drawn_validation if isinstance(validation, int) else validation),
        test=tuple(drawn_test if isinstance(test, int) else test),
        unused=() if receivers else tuple(rest),
    )


def _listed_once(groups: Mapping[str, Iterable[str]], known: Iterable[str]) -> dict[str, str]:
    """Return the group of each listed patient, or refuse an unknown or doubly listed one."""
    known = list(known)
    owner: dict[str, str] = {}
    for group, ids in groups.items():
        for patient in ids:
            if patient not in known:
                near = get_close_matches(patient, known, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"there are {len(known)} patients."
                raise PhysFedError(f"{group} lists {patient!r}, which the data do not have: {hint}")
            if patient in owner:
                raise PhysFedError(
                    f"{group} lists {patient!r}, which {owner[patient]} lists too; "
                    "a patient may be used only once, so take it out of one of them."
                )
            owner[patient] = group
    return owner


def _check_enough(patients: int, listed: int, counted: Sequence[int], receivers: int) -> None:
    needed = listed + sum(counted) + receivers
    if needed > patients:
        raise PhysFedError(
            f"the data have {patients} patients but {needed} are needed ({listed} listed, "
            f"{counted[0]} for the test, {counted[1]} for validation, one for each of {receivers} "
            "clients); give more patients, fewer clients or smaller data.test_patients."
        )


def _balance(
    patients: Iterable[str], slice_counts: Mapping[str, int], clients: Sequence[str]
) -> dict[str, list[str]]:
    """Deal the longest patients first to whoever has the fewest slices, then fewest patients."""
    dealt: dict[str, list[str]] = {client: [] for client in clients}
    load = dict.fromkeys(clients, 0)
    if not clients:
        return dealt
    for patient in sorted(patients, key=lambda patient: -slice_counts[patient]):
        client = min(clients, key=lambda client: (load[client], len(dealt[client])))
        dealt[client].append(patient)
        load[client] += slice_counts[patient]
    return dealt
