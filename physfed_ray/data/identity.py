"""Who a patient is, whatever an experiment does with the images: to find one in another's data.

A fingerprint changes with the slices that are read, the size of phantoms and the reader of DICOM.
What identifies a patient here does not, nor does it depend on the user's salt: an asset carries it
to other machines. Nobody can trace it back to a person without having the images.

A phantom is known by its generator, the seed and its number. A DICOM patient is known by the UIDs
of the studies, which are unique in the world; one without any by the bytes of the files. A patient
whose files got new UIDs is another one here.

This is no part of the sources themselves: a change of their files gives every scan another key.
"""

from collections.abc import Iterable
from hashlib import blake2b

from physfed_ray.data.patient import PatientSource
from physfed_ray.data.phantom import VERSION, PhantomSource


def identities(source: PatientSource, seed: int, patients: Iterable[str]) -> tuple[str, ...]:
    """Return the hashes by which some patients are known, sorted, each once.

    Args:
        source: Where they come from.
        seed: That of the experiment, which phantoms follow from.
        patients: Their ids in the source.
    """
    return tuple(sorted({known for patient in patients for known in _known(source, seed, patient)}))


def _known(source: PatientSource, seed: int, patient: str) -> list[str]:
    if isinstance(source, PhantomSource):
        return [_hashed("phantom", VERSION, seed, patient)]
    studies = _studies(source, patient)
    return [_hashed("study", study) for study in studies] or [source.fingerprint(patient)]


def _studies(source: PatientSource, patient: str) -> set[str]:
    """Return the UIDs of a patient's studies, none where the source or its files have none."""
    headers = getattr(source, "_patients", {}).get(patient, ())
    return {header.study for header in headers if getattr(header, "study", "")}


def _hashed(*parts: int | str) -> str:
    return blake2b("\x1f".join(map(str, parts)).encode(), digest_size=16).hexdigest()
