"""Pseudonyms, the user's salt, and the choice of slices."""

import re
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from physfed_ray.data.patient import PatientVolume, evenly_spaced, pseudonym, user_salt


def test_a_pseudonym_is_stable_and_depends_on_patient_and_salt():
    first = pseudonym("Doe^Jane", b"salt")
    assert re.fullmatch(r"[0-9a-f]{12}", first)
    assert first == pseudonym("Doe^Jane", b"salt")
    assert len({first, pseudonym("Doe^John", b"salt"), pseudonym("Doe^Jane", b"other")}) == 3


def test_a_salt_of_any_length_is_used_whole():
    assert pseudonym("a", b"x" * 200) != pseudonym("a", b"x" * 201)


def test_the_salt_is_drawn_once_and_only_the_user_can_read_it(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("PHYSFED_SALT", raising=False)
    with ThreadPoolExecutor(8) as pool:
        salts = set(pool.map(lambda _: user_salt(), range(8)))
    assert len(salts) == 1
    assert len(salts.pop()) >= 32
    folder = tmp_path / ".cache" / "physfed_ray"
    assert [path.name for path in folder.iterdir()] == ["salt"]
    assert stat.S_IMODE((folder / "salt").stat().st_mode) == 0o600


def test_the_environment_overrides_the_salt(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PHYSFED_SALT", "shared")
    assert user_salt() == b"shared"
    assert not (tmp_path / ".cache").exists()


@pytest.mark.parametrize(("count", "limit"), [(24, 16), (300, 7), (5, 1), (2, 2), (16, None)])
def test_slices_are_spread_evenly_and_never_repeated(count: int, limit: int | None):
    chosen = evenly_spaced(count, limit)
    assert len(chosen) == len(set(chosen)) == (limit or count)
    assert chosen == sorted(chosen)
    mirrored = [count - 1 - index for index in reversed(chosen)]
    assert np.abs(np.subtract(chosen, mirrored)).max() <= 1


def test_a_volume_needs_a_spacing_and_a_position_for_each_slice():
    with pytest.raises(ValueError, match="one spacing"):
        PatientVolume("a", (np.zeros((2, 2), np.float32),), (), (0.0,))
