"""Who trains with which patients where both doses were measured: each belongs to one scanner.

Clients of one protocol are one scanner, and are tested on the same patients; other scanners have
never seen these.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from physfed_ray.data.split import Split, TooFewPatientsError, Wanted, deal, listed_once
from physfed_ray.errors import PhysFedError
from physfed_ray.experiment.measured import Scanner
from physfed_ray.seeds import generator


def deal_measured(
    slice_counts: Mapping[str, int],
    scanners: Sequence[Scanner],
    clients: Mapping[str, Wanted],
    unseen: Mapping[str, Sequence[str]],
    test: int | Sequence[str],
    validation: int | Sequence[str],
    seed: int,
) -> tuple[list[Split], tuple[str, ...]]:
    """Deal patients out, scanner by scanner.

    Where all clients list their patients, these lists say whose a patient is, and test and
    validation patients are taken out of them: the listed ones, or so many of each scanner. Else
    there is one scanner, and everything is dealt as with simulated scans.

    Args:
        slice_counts: Usable slices of each patient, by patient id.
        scanners: All scanners that train.
        clients: As of ``split.deal``.
        unseen: Patients of each unseen scanner, by its id.
        test: As of ``split.deal``; a number is that of each scanner.
        validation: Likewise.
        seed: Likewise.

    Returns:
        One split a scanner, in their order, and the patients that none of them uses.

    Raises:
        PhysFedError: As of ``split.deal``; also if a listed patient is no scanner's, or a scanner
            is left without a test patient, or a client without one to train on.
    """
    listed = {name: ids for name, ids in clients.items() if isinstance(ids, Sequence)}
    groups = {f"clients.{name}.patients": ids for name, ids in listed.items()}
    groups |= {f"unseen.{name}.patients": ids for name, ids in unseen.items()}
    owners = listed_once(groups, slice_counts, reuse=False)
    held = {
        f"data.{name}_patients": ids
        for name, ids in (("test", test), ("validation", validation))
        if isinstance(ids, Sequence)
    }
    listed_once(held, slice_counts, reuse=False)
    elsewhere = {patient for ids in unseen.values() for patient in ids}
    own = {patient: n for patient, n in slice_counts.items() if patient not in elsewhere}
    if len(listed) < len(clients):
        dealt = {name: _without(ids, held.values()) for name, ids in listed.items()}
        _check_trains(dealt)
        split = deal(own, {**clients, **dealt}, test, validation, seed)
        return [split], split.unused
    for key, patient in ((key, patient) for key, ids in held.items() for patient in ids):
        if len(scanners) > 1 and patient not in owners:
            raise PhysFedError(
                f"{key} lists {patient!r}, which no client lists: with pairs of several scanners, "
                "add the patient to the list of the client whose scanner it was."
            )
    splits = [
        _of_scanner(
            {name: listed[name] for name in scanner.clients},
            own if len(scanners) == 1 else None,
            {"test": test, "validation": validation},
            seed,
        )
        for scanner in scanners
    ]
    used = {id for s in splits for ids in (*s.train.values(), s.test, s.validation) for id in ids}
    return splits, tuple(patient for patient in own if patient not in used)


def _of_scanner(
    lists: Mapping[str, Sequence[str]],
    others: Iterable[str] | None,
    wanted: Mapping[str, int | Sequence[str]],
    seed: int,
) -> Split:
    """Take test and validation patients out of the lists of a scanner's clients.

    Args:
        lists: Patients of each client.
        others: Patients whom no client has to list to be tested; None where lists say whose they
            are.
        wanted: How many, or who, is for "test" and for "validation".
        seed: Decides who is drawn.
    """
    pool = {patient for ids in (*lists.values(), others or ()) for patient in ids}
    held = {
        name: tuple(patient for patient in ids if patient in pool)
        for name, ids in wanted.items()
        if isinstance(ids, Sequence)
    }
    rng = generator(seed, "split", next(iter(lists)))
    free = {}
    for client, ids in lists.items():
        left = _without(ids, held.values())
        free[client] = [left[i] for i in rng.permutation(len(left))]
    for name, number in wanted.items():
        if isinstance(number, int):
            held[name] = tuple(_drawn(free, number))
    train = {client: _without(ids, held.values()) for client, ids in lists.items()}
    _check_trains(train)
    if not held["test"]:
        raise TooFewPatientsError(
            f"data.test_patients names no patient of {', '.join(lists)}, and no other client has "
            "that scanner: add one of their patients."
        )
    return Split(train=train, validation=held["validation"], test=held["test"], unused=())


def _drawn(free: Mapping[str, list[str]], number: int) -> Iterator[str]:
    """Draw patients, each from the client that has most of them left."""
    for _ in range(number):
        longest = max(free.values(), key=len)
        if longest:
            yield longest.pop()


def _without(ids: Sequence[str], taken: Iterable[Sequence[str]]) -> tuple[str, ...]:
    gone = {patient for patients in taken for patient in patients}
    return tuple(patient for patient in ids if patient not in gone)


def _check_trains(train: Mapping[str, Sequence[str]]) -> None:
    for client, ids in train.items():
        if not ids:
            raise TooFewPatientsError(
                f"clients.{client}.patients: nobody is left to train on beside the test and "
                "validation patients; list more patients, or hold back fewer."
            )
