"""DICOM in, DICOM out: HU, order, names, what is left out, and going on after an interruption."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest

from physfed_ray.ct.protocol import PRESETS
from physfed_ray.data.dicom.frames import read_image
from physfed_ray.errors import PhysFedError
from physfed_ray.rundir.run_directory import RunDirectory
from physfed_ray.serving.denoise import denoise_folder, going_on
from physfed_ray.serving.output import read_record
from physfed_ray.serving.parts import Outcome, Part, here
from physfed_ray.serving.wanted import Wanted
from tests.data.conftest import WriteCT
from tests.data.conftest import write_ct as write_ct
from tests.data.dicom.multiframe import write_frames
from tests.serving.conftest import train_in

OBLIQUE = {
    "tilted": [1, 0, 0, 0, 0.9397, -0.342],
    "decubitus": [0, 1, 0, -1, 0, 0],
    "prone": [-1, 0, 0, 0, -1, 0],
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the directory of a run."""
    return str(train_in(tmp_path_factory.mktemp("run"), "fedper").root)


@pytest.fixture(scope="module")
def identity(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the directory of a run whose networks change nothing."""
    trained = train_in(tmp_path_factory.mktemp("run"), "fedavg")
    directory = RunDirectory(trained.root)
    name = "checkpoints/round-0001/server.safetensors"
    tensors = directory.read_tensors(name)
    for key in tensors:
        if key.startswith("decoder.layers.4."):
            tensors[key].zero_()
    digest = directory.write_tensors(name, tensors)
    manifest = directory.last_manifest()
    assert manifest is not None
    manifest.parts[name] = digest  # type: ignore[index]
    directory.commit(manifest)
    return str(trained.root)


def wanted(root: str, **changes: Any) -> Wanted:
    given = {"run": root, "client": "c-paper-1", "protocol": None, "policy": None, "rule": "own",
             "batch": 2, "threads": 1, "device": "cpu"}  # fmt: skip
    return Wanted(**(given | changes))


def body(seed: int, shape: tuple[int, int] = (40, 40)) -> np.ndarray:
    rng = np.random.default_rng(seed)
    hu = np.clip(rng.normal(40, 80, shape), -900, 1500).round()
    hu[:4] = -1000
    return hu.astype(np.float32)


def spoil(path: Path) -> None:
    """Give a slice values beyond any CT."""
    dataset = pydicom.dcmread(path)
    pixels = np.random.default_rng(0).integers(3000, 4000, dataset.Rows * dataset.Columns)
    dataset.PixelData = pixels.astype("<u2").tobytes()
    dataset.save_as(path)


def content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes()
            for path in sorted(folder.rglob("*.dcm"))}  # fmt: skip


@pytest.mark.parametrize("rule", ["own", "trained"])
def test_a_network_that_changes_nothing_returns_every_hu(
    tmp_path: Path, write_ct: WriteCT, identity: str, rule: str
) -> None:
    sources: dict[str, np.ndarray] = {}
    cases: dict[str, dict[str, Any]] = {
        "plain": {}, "odd": {"PixelSpacing": [0.7, 0.7]}, "oblong": {"PixelSpacing": [1.5, 0.6]},
        "slope": {"RescaleSlope": 2}, "padded": {"PixelPaddingValue": 0},
        **{name: {"ImageOrientationPatient": cosines} for name, cosines in OBLIQUE.items()},
    }  # fmt: skip
    for number, (name, attributes) in enumerate(cases.items(), 1):
        hu = body(number, (41, 37) if name == "odd" else (40, 40))
        hu = (hu / 2).round() * 2
        if name == "padded":
            hu[:, :3] = -1024
        path = write_ct(tmp_path / "in" / name, hu, series=name, SeriesNumber=number, **attributes)
        sources[pydicom.dcmread(path).SOPInstanceUID] = read_image(path, None)[0]
    denoise_folder(wanted(identity, rule=rule), tmp_path / "in", tmp_path / "out")
    paths = list((tmp_path / "out").rglob("*.dcm"))
    assert len(paths) == len(cases)
    for path in paths:
        made = pydicom.dcmread(path)
        before = sources[made.SourceImageSequence[0].ReferencedSOPInstanceUID]
        np.testing.assert_array_equal(read_image(path, None)[0], before)


def test_slices_are_denoised_named_in_order_and_without_names(
    tmp_path: Path, write_ct: WriteCT, root: str
) -> None:
    for z in range(5):
        write_ct(tmp_path / f"in/Secret/{9 - z}", body(z), z_mm=3.0 * z, InstanceNumber=z + 1)
    (tmp_path / "in/notes.txt").write_text("no image")
    spoil(tmp_path / "in/Secret/7")
    said: list[dict[str, Any]] = []
    result = denoise_folder(wanted(root), tmp_path / "in", tmp_path / "out", on_event=said.append)
    assert (result.made, result.there, result.left_out["not DICOM"]) == (4, 0, 1)
    assert sum(result.left_out.values()) == 2
    names = list(content(tmp_path / "out"))
    assert [name.split("/")[1] for name in names] == [
        "00001.dcm", "00002.dcm", "00004.dcm", "00005.dcm"
    ]  # fmt: skip
    positions = [
        float(pydicom.dcmread(tmp_path / "out" / n).ImagePositionPatient[2]) for n in names
    ]
    assert positions == [0, 3, 9, 12]
    after, _ = read_image(tmp_path / "out" / names[0], None)
    assert 0.2 < np.abs(after - body(0))[6:].mean() < 200
    np.testing.assert_array_equal(after[:4], body(0)[:4])  # flat corners: no image
    record = read_record(tmp_path / "out")
    assert record is not None
    assert record["complete"] is True
    assert record["left_out"] == result.left_out
    text = (tmp_path / "out/denoised.json").read_text()
    assert not any(word in text for word in ("Secret", "P1", str(tmp_path)))
    progress = [event for event in said if event["event"] == "denoise"]
    assert (progress[-1]["done"], progress[-1]["total"]) == (5, 5)
    assert said[0] == {"event": "message", "text": "model: the model of client c-paper-1"}


def test_a_call_that_was_interrupted_goes_on_and_gives_the_same_bytes(
    tmp_path: Path, write_ct: WriteCT, root: str
) -> None:
    for z in range(7):
        write_ct(tmp_path / f"in/{z}", body(z), z_mm=z)
    denoise_folder(wanted(root), tmp_path / "in", tmp_path / "whole")

    def cut_off(*arguments: Any) -> Iterator[Outcome]:
        for number, outcome in enumerate(here(*arguments)):
            yield outcome
            if number == 1:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        denoise_folder(wanted(root), tmp_path / "in", tmp_path / "out", run_parts=cut_off)
    first = content(tmp_path / "out")
    assert len(first) == 4
    (tmp_path / "out" / next(iter(first))).unlink()  # half of a batch
    result = denoise_folder(wanted(root), tmp_path / "in", tmp_path / "out")
    assert (result.made, result.there) == (4, 3)
    assert content(tmp_path / "out") == content(tmp_path / "whole")
    made: list[Part] = []

    def none(*arguments: Any) -> Iterator[Outcome]:
        parts: Sequence[Part] = arguments[-1]
        made.extend(parts)
        return here(*arguments)

    again = denoise_folder(wanted(root), tmp_path / "in", tmp_path / "out", run_parts=none)
    assert (again.made, again.there, len(made)) == (0, 7, 4)
    settled = going_on(tmp_path / "out", wanted(root, batch=1, rule="trained"), ["rule"])
    assert (settled.batch, settled.rule) == (2, "trained")
    with pytest.raises(PhysFedError, match="was begun with another model"):
        denoise_folder(wanted(root, rule="trained"), tmp_path / "in", tmp_path / "out")
    with pytest.raises(PhysFedError, match="was begun with another model"):
        denoise_folder(wanted(root, client="c-paper-2"), tmp_path / "in", tmp_path / "out")


def test_frames_become_files_of_their_own(tmp_path: Path, write_ct: WriteCT, root: str) -> None:
    singles = [pydicom.dcmread(write_ct(tmp_path / f"{z}", body(z), z_mm=z)) for z in range(3)]
    write_frames(tmp_path / "in/frames", singles)
    said: list[dict[str, Any]] = []
    denoise_folder(wanted(root), tmp_path / "in", tmp_path / "out", on_event=said.append)
    assert any("written as classic CT" in event.get("text", "") for event in said)
    made = [pydicom.dcmread(tmp_path / "out" / name) for name in content(tmp_path / "out")]
    assert [str(image.SOPClassUID.keyword) for image in made] == ["CTImageStorage"] * 3
    assert len({image.SOPInstanceUID for image in made}) == 3
    assert [float(image.ImagePositionPatient[2]) for image in made] == [0, 1, 2]


def test_an_unseen_protocol_says_how_near_it_is(
    tmp_path: Path, write_ct: WriteCT, root: str
) -> None:
    write_ct(tmp_path / "in/a", body(0))
    for number, protocol in enumerate(("paper-1", "unseen-3", PRESETS["unseen-3"])):
        said: list[str] = []
        denoise_folder(
            wanted(root, client=None, protocol=protocol), tmp_path / "in",
            tmp_path / f"out{number}", on_event=lambda e, said=said: said.append(e.get("text", "")),
        )  # fmt: skip
        assert said[0].startswith("model: the model of client c-paper-1, the nearest at distance")
        assert any(text.startswith("nearest training protocol: client c-paper-1") for text in said)
        assert any(text.startswith("warning: ") for text in said) == (number > 0)
    with pytest.raises(PhysFedError, match=r"no client 'paper-3'.* give --protocol paper-3"):
        denoise_folder(wanted(root, client="paper-3"), tmp_path / "in", tmp_path / "out")


def test_nothing_that_decodes_is_an_error(tmp_path: Path, write_ct: WriteCT, root: str) -> None:
    spoil(write_ct(tmp_path / "in/a", body(0)))
    with pytest.raises(PhysFedError, match="none of 1 slices could be denoised"):
        denoise_folder(wanted(root), tmp_path / "in", tmp_path / "out")
