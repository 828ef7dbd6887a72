"""What identifies a prepared data set, from its plan and its files."""

from hashlib import blake2b

from physfed_ray.code_version import code_version
from physfed_ray.data.patient import pseudonym, user_salt
from physfed_ray.data.phantom import PhantomSource
from physfed_ray.data.plan import SERVER, PreparePlan
from physfed_ray.data.shards import SCAN_CODE
from physfed_ray.rundir.data_record import DataRecord

SHARED_SPLITS = {"validation": "validation", "test": "test", "unseen": "test", SERVER: SERVER}
"""Splits whose patients every client scans, and what they are called."""


def data_record(todo: PreparePlan, images: dict[str, str]) -> DataRecord:
    """Return what identifies a data set.

    Args:
        todo: Who is scanned as whom.
        images: The checksum of the images of each file, by ``split client``.
    """
    patients = blake2b(digest_size=16)
    dealt: dict[str, tuple[str, ...]] = {}
    for (split, client), people in sorted(todo.files.items()):
        patients.update(f"{split} {client}\n".encode())
        for patient in people:
            patients.update(f"{patient.fingerprint} {patient.slices}\n".encode())
        group = SHARED_SPLITS.get(split, f"{split} {client}")
        dealt[group] = tuple(patient.pseudonym for patient in people)
    scans = blake2b("\n".join(f"{k} {images[k]}" for k in sorted(images)).encode(), digest_size=16)
    code = {"physfed_ray": code_version(*SCAN_CODE)[:12]}
    return DataRecord(
        seed=todo.settings.seed,
        patients=patients.hexdigest(),
        scans=scans.hexdigest(),
        source=_source(todo),
        dealt=dealt,
        made_with=code | dict(todo.settings.made_with),
    )


def _source(todo: PreparePlan) -> str:
    if isinstance(todo.source, PhantomSource):
        return ""
    salt = user_salt()
    names = sorted(
        f"{pseudonym(id, salt)} {todo.source.slice_count(id)}" for id in todo.source.ids()
    )
    return blake2b("\n".join(names).encode(), digest_size=16).hexdigest()
