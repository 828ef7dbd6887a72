"""Write what a machine with a GPU needs for ``gpu.py`` and cannot fetch: real CT in one file.

All usable slices of a DICOM folder at their own resolution, losslessly, patients by pseudonym, with
the split of an experiment file. Prints one JSON line.
"""

import argparse
import json
from pathlib import Path

from gpu_steps.pack import PackSource, write_pack

from physfed_ray.data.dicom.source import DicomSource
from physfed_ray.experiment.file import read_yaml

ROOT = Path(__file__).parents[1]


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dicom", type=Path, default=ROOT.parent / "shared" / "ct")
    parser.add_argument("--split", type=Path, default=ROOT / "experiments" / "paper.yaml")
    parser.add_argument("--out", type=Path, default=ROOT / "gpu_pack" / "ct.arrow")
    args = parser.parse_args()
    content = read_yaml(args.split)
    split = {
        "test": content["data"]["test_patients"],
        "validation": content["data"]["validation_patients"],
        "clients": {client["id"]: client["patients"] for client in content["clients"]},
    }
    write_pack(DicomSource(args.dicom), args.out, split)
    size = args.out.stat().st_size
    print(json.dumps({"benchmark": "gpu_pack", "bytes": size, **PackSource(args.out).summary()}))


if __name__ == "__main__":
    main()
