"""The wheel: it holds what the tree holds, and its command works in an environment of its own.

A quicker test could look at ``pyproject.toml``, and would not see what the build makes of it.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from zipfile import ZipFile

import pytest

import physfed_ray
from physfed_ray.shipped import shipped

ROOT = Path(__file__).parents[2]
NEEDED = ("physfed_ray", "experiments", "pyproject.toml", "README.md", "LICENSE")

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel of a copy, which has no files of an earlier build."""
    tree, out = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("dist")
    ignore = shutil.ignore_patterns("__pycache__")
    for name in NEEDED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, tree / name, symlinks=True, ignore=ignore)
        else:
            shutil.copy(ROOT / name, tree / name)
    call(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", out, tree)
    (built,) = out.glob("*.whl")
    return built


def call(*command: str | Path, cwd: Path | None = None) -> str:
    """Run a command without this checkout on its path, and return what it prints."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_holds_every_file_of_the_package(wheel: Path) -> None:
    package = ROOT / "physfed_ray"
    tree = {
        file.relative_to(ROOT).as_posix()
        for file in package.rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    with ZipFile(wheel) as archive:
        inside = {name for name in archive.namelist() if ".dist-info/" not in name}
        quickstart = archive.read("physfed_ray/experiment/shipped/quickstart.yaml")
        (licence,) = [name for name in archive.namelist() if name.endswith("licenses/LICENSE")]
        assert archive.read(licence) == (ROOT / "LICENSE").read_bytes()
    assert inside == tree
    assert quickstart == (ROOT / "experiments" / "quickstart.yaml").read_bytes()
    assert wheel.name == f"physfed_ray-{physfed_ray.__version__}-py3-none-any.whl"


def test_its_command_works_in_an_environment_of_its_own(wheel: Path, tmp_path: Path) -> None:
    """The other packages are borrowed from the environment of the tests: nothing is downloaded."""
    home = tmp_path / "venv"
    call(sys.executable, "-m", "venv", "--without-pip", home)
    python = home / "bin" / "python"
    call(sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", wheel)
    own = Path(call(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    # Of a folder that is named like this, Python runs no .pth files: not the checkout's own either.
    (own / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    where = call(python, "-c", "import physfed_ray; print(physfed_ray.__file__)", cwd=tmp_path)
    assert Path(where.strip()) == own / "physfed_ray" / "__init__.py"
    physfed = home / "bin" / "physfed"
    assert "physfed run quickstart" in call(physfed, "--help", cwd=tmp_path)
    listed = call(physfed, "experiments", cwd=tmp_path).splitlines()
    assert [line.split()[0] for line in listed] == list(shipped())
    described = call(physfed, "describe", "quickstart", cwd=tmp_path)
    assert described.startswith("quickstart: SCAN-PhysFed")
