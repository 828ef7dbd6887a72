"""The room that further fields take on the disk, sinograms above all, before they are made."""

import math
from dataclasses import dataclass

from physfed_ray.data.plan import PreparePlan
from physfed_ray.fields import Sizes, field_of


@dataclass(frozen=True)
class StoredField:
    """A field that is made for this experiment.

    Attributes:
        name: The field.
        cached: Its bytes of all slices in the cache.
        held: Its bytes in the files that clients map into memory, beside those in the cache.
    """

    name: str
    cached: int
    held: int


def stored_fields(todo: PreparePlan) -> list[StoredField]:
    """Return what each field takes that not every experiment makes."""
    found: dict[str, StoredField] = {}
    size = todo.settings.simulation.image_size
    for (split, client), patients in todo.files.items():
        slices = sum(patient.slices for patient in patients)
        protocol = todo.clients.get(client) or todo.unseen[client]
        for name in todo.made_of(split):
            field = field_of(name)
            each = (
                math.prod(field.shape(Sizes(size), protocol))
                * field.stored_under(protocol).itemsize
            )
            before = found.get(name, StoredField(name, 0, 0))
            held = slices * each if name in todo.fields_of(split) else 0
            found[name] = StoredField(name, before.cached + slices * each, before.held + held)
    return list(found.values())
