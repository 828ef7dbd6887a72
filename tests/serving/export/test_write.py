"""A run exported, and used where it was exported to."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors
from huggingface_hub import ModelCard

from physfed_ray.cli import main
from physfed_ray.ct.protocol import PRESETS
from physfed_ray.errors import PhysFedError
from physfed_ray.serving.choice import Policy
from physfed_ray.serving.export import onnx_file
from physfed_ray.serving.export.load import load_exported
from physfed_ray.serving.export.write import export_run
from physfed_ray.serving.trained import load_run
from tests.serving.conftest import Trained, in_hu

Train = Callable[..., Trained]
BLOCKED = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked}:
            raise ImportError(name + " is not here")
sys.meta_path.insert(0, Block())
"""


def code_of(folder: Path) -> str:
    """Return the code block of an export's card."""
    return (folder / "README.md").read_text().partition("```python\n")[2].partition("```")[0]


def save_inputs(folder: Path, trained: Trained, name: str) -> np.ndarray:
    """Save the inputs that a card's code reads; return the images in HU."""
    data = trained.images[name]
    hu = in_hu(data.low).astype(np.float32)
    hu[:, 5, 5] = 3000
    np.save(folder / "slices.npy", hu)
    np.save(folder / "embedding.npy", data.embedding)
    np.save(folder / "mask.npy", data.embedding_mask.astype(bool))
    return hu


def run_elsewhere(folder: Path, *blocked: str) -> np.ndarray:
    """Run the card's code in a process without some packages, nor this checkout."""
    program = BLOCKED.format(blocked=blocked) + code_of(folder)
    found = subprocess.run(
        [sys.executable, "-I", "-c", program], cwd=folder, capture_output=True, text=True
    )
    assert found.returncode == 0, found.stderr
    return np.asarray(np.load(folder / "denoised.npy"))


def test_the_onnx_file_runs_without_this_package_and_without_torch(
    train: Train, tmp_path: Path
) -> None:
    trained, out = train("scan_physfed"), tmp_path / "out"
    out.mkdir()  # an empty folder is a new one
    made = export_run(trained.root, out, "onnx", client="c-paper-1")
    assert made.difference is not None
    assert made.difference < 1e-5
    assert sorted(path.name for path in out.iterdir()) == ["README.md", "model.json", "model.onnx"]
    hu = save_inputs(out, trained, "c-paper-1")
    denoised = run_elsewhere(out, "physfed_ray", "torch")
    data = trained.images["c-paper-1"]
    expected = load_run(trained.root).denoiser("c-paper-1")(
        hu, embedding=data.embedding, mask=data.embedding_mask
    )
    np.testing.assert_allclose(denoised, expected, atol=0.01)
    assert np.abs(denoised - hu).max() > 0.1
    inputs = json.loads((out / "model.json").read_text())["inputs"]
    assert [(i["name"], i["axes"]) for i in inputs] == [
        ("hu", ["batch", "height", "width"]),
        ("embedding", ["batch", 1, 8]),
        ("mask", ["batch", 1]),
    ]
    wide = np.concatenate([hu, hu[:, :, :7]], 2)[:2]  # the card's "any size"
    np.save(out / "slices.npy", wide)
    for name in ("embedding", "mask"):
        np.save(out / f"{name}.npy", np.load(out / f"{name}.npy")[:2])
    assert run_elsewhere(out, "physfed_ray", "torch").shape == wide.shape


@pytest.mark.parametrize(
    ("method", "policy"),
    [
        ("fedper", "nearest_protocol"),
        # 10 s of CPU: a code and open sizes of a report's map, in a file that is read back.
        pytest.param("scan_physfed", "pvqs", marks=pytest.mark.cluster),
    ],
)
def test_the_torch_program_runs_without_this_package_and_holds_no_pickle(
    method: str, policy: Policy, train: Train, tmp_path: Path
) -> None:
    trained, out = train(method), tmp_path / "out"
    made = export_run(trained.root, out, "torch", protocol="unseen-2", policy=policy)
    assert made.difference is not None
    assert made.difference < 1e-6
    hu = save_inputs(out, trained, "unseen-2")
    denoised = run_elsewhere(out, "physfed_ray")
    data = trained.images["unseen-2"]
    denoiser = load_run(trained.root).denoiser(protocol="unseen-2", policy=policy)
    report = {"embedding": data.embedding, "mask": data.embedding_mask}
    expected = denoiser(hu, **(report if denoiser.reads_report else {}))
    np.testing.assert_allclose(denoised, expected, atol=0.01)
    assert b"cpickle" not in (out / "model.pt2").read_bytes().lower()
    assert b"c__builtin__" not in (out / "model.pt2").read_bytes()


@pytest.mark.parametrize(
    ("method", "backbone", "precision", "which"),
    [
        ("scan_physfed", "red_cnn", "bf16", {"protocol": "unseen-2"}),
        ("fedbn", "red_cnn", "fp32", {"client": "c-paper-2"}),
        ("fedfdd", "red_cnn", "fp32", {"client": "c-paper-2"}),
        ("fedavg", "uformer", "fp32", {"protocol": "paper-5"}),
    ],
)
def test_weights_give_the_bits_of_the_run(
    method: str,
    backbone: str,
    precision: str,
    which: dict[str, str],
    train: Train,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trained = train(method, backbone, precision=precision)
    out = tmp_path / "out"
    export_run(trained.root, out, "safetensors", **which)  # type: ignore[arg-type]
    expected = load_run(trained.root).denoiser(**which, device="cpu")  # type: ignore[arg-type]
    shutil.rmtree(trained.root)
    data = trained.images["c-paper-2"]
    hu = save_inputs(out, trained, "c-paper-2")
    report = {"embedding": data.embedding, "mask": data.embedding_mask}
    given = report if expected.reads_report else {}
    monkeypatch.chdir(out)
    exec(code_of(out), {})
    assert np.array_equal(np.load(out / "denoised.npy"), expected(hu, **given))
    found = load_exported(out, device="cpu")
    assert found.model_hash == expected.model_hash
    assert (found.protocol, str(found.choice)) == (expected.protocol, str(expected.choice))
    with safetensors.safe_open(out / "model.safetensors", "np") as weights:
        assert set(weights.keys()) == set(expected.network.state_dict())
        assert weights.metadata()["model_hash"] == expected.model_hash
    assert ("bfloat16" in (out / "README.md").read_text()) == (precision == "bf16")


def test_the_card_is_one_that_the_hub_reads(train: Train, tmp_path: Path) -> None:
    trained, out = train("fedper"), tmp_path / "out"
    export_run(trained.root, out, "safetensors", client="c-paper-1")
    card = ModelCard.load(out / "README.md")
    assert card.data.library_name == "physfed_ray"
    assert "fedper" in card.data.tags
    for said in (
        "trained for 1 rounds", "-1000 to 2000", "Not for clinical use", "No radiologist",
        "Lesions", "Real low dose", "| c-paper-2 | 128 | 768 |", "has not finished",
    ):  # fmt: skip
        assert said in card.text


def test_the_command_exports_into_a_folder_named_after_the_run(
    train: Train,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    trained = train("fedper")
    (trained.root / "experiment.yaml").write_text("name: tiny\n")
    scanner = tmp_path / "scanner.yaml"
    scanner.write_text(json.dumps(PRESETS["paper-2"].values()))
    monkeypatch.chdir(tmp_path)
    given = [str(trained.root), "--format", "safetensors"]
    assert main(["export", *given, "--protocol", "scanner.yaml"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said == [
        "model: the model of client c-paper-2, the nearest at distance 0.0000",
        "run-scanner-safetensors",
    ]
    assert load_exported(said[-1]).protocol == PRESETS["paper-2"]
    assert main(["export", *given, "--protocol", "scanner.yaml"]) == 2
    assert "is there already" in capsys.readouterr().err
    assert main(["export", *given, "--client", "c9"]) == 2
    assert "no client 'c9'" in capsys.readouterr().err


def test_what_cannot_be_exported_is_said_and_leaves_nothing(train: Train, tmp_path: Path) -> None:
    trained, out = train("fedfdd"), tmp_path / "deep" / "out"
    for form, which, said in (
        ("onnx", {"client": "c-paper-1"}, "FedFDD cannot be exported as a graph"),
        ("safetensors", {"client": "c9"}, "no client 'c9'"),
        ("safetensors", {"client": "paper-3"}, "give --protocol paper-3"),
        ("safetensors", {"protocol": "paper-3", "policy": "pvqs"}, "'pvqs' is not possible"),
        ("pickle", {"client": "c-paper-1"}, "unknown format 'pickle'; there are: safetensors, on"),
    ):
        with pytest.raises(PhysFedError, match=said) as refusal:
            export_run(trained.root, out, form, **which)  # type: ignore[arg-type]
        assert "\n" not in str(refusal.value)
    assert not out.parent.exists() or not any(out.parent.iterdir())
    used = tmp_path / "used"
    used.mkdir()
    (used / "mine.txt").write_text("mine")
    for taken in (used, used / "mine.txt"):
        with pytest.raises(PhysFedError, match="is there already: give a new folder as --out"):
            export_run(trained.root, taken, "safetensors", client="c-paper-1")
    with pytest.raises(PhysFedError, match="is a folder of this machine"):
        export_run(trained.root, Path("s3://bucket/out"), "safetensors", client="c-paper-1")
    assert (used / "mine.txt").read_text() == "mine"
    shutil.rmtree(trained.root / "checkpoints")
    with pytest.raises(PhysFedError, match="no completed round"):
        export_run(trained.root, out, "safetensors", client="c-paper-1")


def test_without_the_packages_of_onnx_it_says_which(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_file, "PACKAGES", ("numpy", "onnx_that_is_not_here"))
    with pytest.raises(PhysFedError, match=r"needs onnx_that_is_not_here: pip install 'physfed_"):
        export_run(tmp_path, tmp_path / "out", "onnx", client="c1")


def test_a_bucket_holds_runs_as_well(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fsspec

    trained = train("fedper")
    memory = fsspec.filesystem("memory")
    memory.put(str(trained.root), "/runs/mine", recursive=True)
    export_run("memory://runs/mine", tmp_path / "out", "safetensors", client="c-paper-1")
    own = load_run(trained.root).denoiser("c-paper-1", device="cpu")
    assert load_exported(tmp_path / "out").model_hash == own.model_hash
    memory.rm("/runs", recursive=True)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda folder: (folder / "model.json").unlink(), "model.json is not there"),
        (lambda folder: (folder / "model.json").write_text("{"), "cannot be read"),
        (lambda folder: (folder / "model.json").write_text('{"format": 9}'), "of no export"),
        (
            lambda folder: (folder / "model.json").write_text('{"format": 1}'),
            "export the run again",
        ),
        (lambda folder: (folder / "model.safetensors").unlink(), "holds no model.safetensors"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"x" * 99), "is damaged"),
    ],
)
def test_a_spoilt_export_is_refused(
    spoil: Callable[[Path], None], said: str, train: Train, tmp_path: Path
) -> None:
    export_run(train("fedavg").root, tmp_path / "out", "safetensors", client="c-paper-1")
    spoil(tmp_path / "out")
    with pytest.raises(PhysFedError, match=said):
        load_exported(tmp_path / "out")
