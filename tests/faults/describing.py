"""Describes slices on a cluster in a process of its own: ``ADDRESS FOLDER COUNT``.

Prints the health after every batch, and in the end how many slices are as one process has them.
"""

import sys
from pathlib import Path

import ray

from physfed_ray.data.description import describe_inline
from physfed_ray.experiment.reports import Pool
from physfed_ray.runtime.reports import describe_on_ray
from tests.runtime.reporters import OddReports, random_slices


def main(address: str, folder: Path, count: int) -> None:
    """Describe random slices."""
    reports = OddReports(folder=folder, pool=Pool(min_size=2, max_batch=4, retries=1))
    slices = random_slices(folder / "scans.arrow", count)
    ray.init(address, logging_level="ERROR", log_to_driver=False)
    (folder / "dawdle").touch()
    found: dict[str, str] = {}
    for batch in describe_on_ray(reports, slices):
        found |= zip(batch.images, batch.described.report, strict=True)
        print(batch.health, flush=True)
    (folder / "dawdle").unlink()
    for batch in describe_inline(reports, slices):
        for image, report in zip(batch.images, batch.described.report, strict=True):
            assert found.pop(image) == report
    assert not found
    print(f"{count} described")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
