"""Fixtures that several packages' tests share."""

from pathlib import Path

import pytest

REAL_CT = Path(__file__).parents[2] / "shared" / "ct"


@pytest.fixture(scope="session")
def real_ct() -> Path:
    """Return the folder of real clinical DICOM, or skip where it is absent."""
    if not REAL_CT.is_dir():
        pytest.skip(f"the real CT folder {REAL_CT.name} is not beside the project")
    return REAL_CT
