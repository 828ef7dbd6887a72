"""The judges of the fuzzer are able to fail: a product that errs is found out."""

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from physfed_ray.data.dicom import source
from physfed_ray.data.dicom.source import DicomSource
from physfed_ray.data.patient import PatientVolume
from tests.fuzz import yaml_files
from tests.fuzz.dicom import Dicom
from tests.fuzz.harness import FINDINGS, WRONG, Kind, try_seed
from tests.fuzz.yaml_files import Yaml

SEEDS = range(1, 13)


def results(kind: Kind, folder: Path) -> list[str]:
    return [try_seed(kind, seed, folder).result for seed in SEEDS]


@pytest.fixture
def dicom(tmp_path: Path) -> Dicom:
    kind = Dicom()
    kind.prepare(tmp_path / "base")
    return kind


def with_volume(change: Callable[[PatientVolume], PatientVolume]) -> Callable[..., PatientVolume]:
    load = DicomSource.load
    return lambda self, patient, limit: change(load(self, patient, limit))


def one_hu_more(volume: PatientVolume) -> PatientVolume:
    return replace(volume, slices=tuple(hu + 1 for hu in volume.slices))


def a_hole(volume: PatientVolume) -> PatientVolume:
    slices = [hu.copy() for hu in volume.slices]
    for hu in slices:
        hu[18:22, 18:22] = -1000
    return replace(volume, slices=tuple(slices))


def upside_down(volume: PatientVolume) -> PatientVolume:
    return replace(volume, slices=volume.slices[::-1])


def without_the_last(volume: PatientVolume) -> PatientVolume:
    return replace(
        volume,
        slices=volume.slices[:-1],
        spacings_mm=volume.spacings_mm[:-1],
        positions_mm=volume.positions_mm[:-1],
    )


def test_a_reader_that_does_right_is_not_accused(dicom: Dicom, tmp_path: Path) -> None:
    assert not set(results(dicom, tmp_path)) & set(FINDINGS)


@pytest.mark.parametrize("fault", [one_hu_more, a_hole, upside_down, without_the_last])
def test_a_reader_that_changes_values_is_found_out(
    dicom: Dicom, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Any
) -> None:
    monkeypatch.setattr(DicomSource, "load", with_volume(fault))
    assert results(dicom, tmp_path).count(WRONG) > len(SEEDS) // 3


def test_a_reader_that_believes_any_scale_is_found_out(
    dicom: Dicom, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = source.read_image
    monkeypatch.setattr(source, "read_image", lambda *at: (read(*at)[0] * np.float32(np.inf), ()))
    assert WRONG in results(dicom, tmp_path)


def test_a_schema_that_changes_a_value_is_found_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = Yaml()
    kind.prepare(tmp_path / "base")
    load = yaml_files.load_experiment

    def off_by_one(*arguments: Any) -> Any:
        experiment = load(*arguments)
        return experiment.model_copy(update={"seed": random.Random().randrange(2**40)})

    monkeypatch.setattr(yaml_files, "load_experiment", off_by_one)
    assert WRONG in results(kind, tmp_path)
