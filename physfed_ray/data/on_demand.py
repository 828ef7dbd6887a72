"""Fields that somebody asks for of a data set that is there: made beside its shards, read there.

What a method or a backbone declares is in the data set's own files (``plan``). This is for what an
analysis reads of some files, long after: the data set and its name stay as they are.
"""

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from physfed_ray.data.plan import PreparePlan
from physfed_ray.data.scanning import do_shard
from physfed_ray.data.store import damaged_scans, read_field


def make_field(todo: PreparePlan, name: str, files: Iterable[tuple[str, str]]) -> None:
    """Make what the cache lacks of a field, in this process; patients without a scan have none.

    Args:
        todo: The data set.
        name: The field.
        files: Splits and clients of the files whose slices it is made of.

    Raises:
        PhysFedError: As ``data.scanning.do_shard`` does.
    """
    shards = {shard.key: shard for file in files for shard in todo.shards_of(*file)}
    for shard in sorted(shards.values(), key=lambda shard: shard.patient.fingerprint):
        path = todo.field_path_of(shard, name)
        if not path.is_file() or damaged_scans([path]):
            wanted = replace(shard, fields=(name,))
            do_shard(todo.source, todo.settings, wanted, todo.cache)


def read_made(todo: PreparePlan, name: str, split: str, client: str) -> list[np.ndarray]:
    """Return what ``make_field`` made of the slices of a file, in their order, mapped into memory.

    Raises:
        PhysFedError: A part of it is not one that ``make_field`` wrote.
    """
    paths = (todo.field_path_of(shard, name) for shard in todo.shards_of(split, client))
    return [values for path in paths if path.is_file() for values in read_field(path)]
