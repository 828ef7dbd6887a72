"""What dciodvfy, of Debian's dicom3tools, has against a file."""

import shutil
import subprocess
from pathlib import Path

import pytest

needs_dciodvfy = pytest.mark.skipif(
    shutil.which("dciodvfy") is None, reason="dciodvfy (of dicom3tools) is not installed"
)


def errors(path: Path) -> set[str]:
    """Return the errors, each once; warnings are none."""
    run = subprocess.run(["dciodvfy", str(path)], capture_output=True, text=True, errors="replace")
    lines = (run.stdout + run.stderr).splitlines()
    assert any(line.startswith(("CTImage", "EnhancedCTImage", "LegacyConverted")) for line in lines)
    return {line for line in lines if line.startswith(("Error", "Abort"))}
