"""A run directory alone gives the images that the run's own last evaluation gave, bit for bit."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from physfed_ray.data.store import read_client_data
from physfed_ray.errors import DamagedError, PhysFedError
from physfed_ray.methods.registry import METHODS
from physfed_ray.models.base import DiffusionBackbone
from physfed_ray.models.registry import BACKBONES, make_backbone
from physfed_ray.rundir.run_directory import RunDirectory
from physfed_ray.serving.denoiser import Denoiser
from physfed_ray.serving.trained import load_run
from tests.serving.conftest import SLICES, TRAINED, Trained, in_hu

MIDDLE = SLICES // 2
Train = Callable[..., Trained]


def serve(denoiser: Denoiser, trained: Trained, name: str) -> np.ndarray:
    """Denoise a client's or an unseen protocol's test images, (N, n, n) in HU."""
    data = trained.images[name]
    reads = "embedding" in trained.run.rounds.spec.method.reads()
    embedding = data.embedding if reads else None
    mask = data.embedding_mask if reads else None
    return denoiser(in_hu(data.low), embedding=embedding, mask=mask, fields=data.extra)


def nearest_client_images(trained: Trained, client: int) -> np.ndarray:
    """Return the unseen protocol's images by one client's model, from the run's own host."""
    rounds = trained.run.rounds
    (turn,) = rounds.turns([client])
    vector, _ = rounds.broadcast(rounds.manifest.round)
    (host,) = trained.run.runtime._hosts
    _, pieces = host.unseen.serve(vector, [turn], 0)
    return pieces[0, client]


@pytest.mark.parametrize(
    ("method", "backbone"),
    [
        (name, backbone)
        for name, method in METHODS.items()
        for backbone in BACKBONES
        if method.refuses(make_backbone(backbone)) is None
    ],
)
def test_every_method_serves_as_in_its_run(method: str, backbone: str, train: Train) -> None:
    trained = train(method, backbone)
    run = load_run(trained.root)
    assert run.card == trained.card
    window = run.denoiser("c-paper-1").denormalise
    for client in run.clients:
        images = serve(run.denoiser(client), trained, client)
        assert np.array_equal(images[MIDDLE], window(trained.denoised("test", client)))
        assert np.std(images - in_hu(trained.images[client].low)) > 0.03  # HU: more than a shift
    denoiser = run.denoiser(protocol="unseen-2")
    images = serve(denoiser, trained, "unseen-2")
    if denoiser.choice.policy == "nearest_protocol":
        nearest = trained.results.nearest["unseen-2"]
        assert denoiser.choice.client == run.clients[nearest]
        assert np.array_equal(images, window(nearest_client_images(trained, nearest)))
    else:
        split = f"unseen/{denoiser.choice.policy}"
        assert np.array_equal(images[MIDDLE], window(trained.denoised(split, "unseen-2")))


@pytest.mark.parametrize("backbone", BACKBONES)
def test_lower_precision_serves_as_in_its_run(backbone: str, train: Train) -> None:
    """Features are rounded between encoder and decoder as on their way between two hosts."""
    diffusion = isinstance(make_backbone(backbone), DiffusionBackbone)
    trained = train("fedavg" if diffusion else "scan_physfed", backbone, precision="bf16")
    run = load_run(trained.root)
    assert run.card.precision == "bf16"
    for split, denoiser in (
        ("test", run.denoiser("c-paper-2")),
        ("unseen/shared" if diffusion else "unseen/pvqs", run.denoiser(protocol="unseen-2")),
    ):
        name = "unseen-2" if "unseen" in split else "c-paper-2"
        images = serve(denoiser, trained, name)
        expected = denoiser.denormalise(trained.denoised(split, name))
        assert np.array_equal(images[MIDDLE], expected)


def test_a_client_that_never_trained_has_its_initial_private_part(train: Train) -> None:
    trained = train("fedper", participation=0.5)
    rounds = trained.run.rounds.manifest.private_rounds
    (idle, *_) = [client for client, number in rounds.items() if number == 0]
    run = load_run(trained.root)
    network = run.denoiser(idle).network
    initial = trained.run.rounds.spec.method.build(1)
    assert torch.equal(network.get_parameter("decoder.layers.0.weight"),
                       initial.get_parameter("decoder.layers.0.weight"))  # fmt: skip
    assert not torch.equal(network.get_parameter("encoder.layers.0.weight"),
                           initial.get_parameter("encoder.layers.0.weight"))  # fmt: skip
    expected = trained.denoised("test", idle)
    images = serve(run.denoiser(idle), trained, idle)
    assert np.array_equal(images[MIDDLE], run.denoiser(idle).denormalise(expected))


def test_an_interrupted_run_serves_its_last_completed_round(train: Train) -> None:
    trained = train("fedper", rounds=3, keep_checkpoints=3)
    later = load_run(trained.root)
    (trained.root / "checkpoints/round-0003/state.json").unlink()
    run = load_run(trained.root)
    assert (later.round, run.round) == (3, 2)
    layers = [loaded.denoiser("c-paper-1").network.get_parameter("decoder.layers.0.weight")
              for loaded in (later, run)]  # fmt: skip
    assert not torch.equal(*layers)
    shutil.rmtree(trained.root / "checkpoints")
    with pytest.raises(PhysFedError, match="holds no completed round yet"):
        load_run(trained.root)


def test_a_bucket_is_loaded_as_a_folder_is(train: Train) -> None:
    trained = train("scan_physfed")
    bucket = RunDirectory("memory://trained/run")
    for path in trained.root.rglob("*"):
        if path.is_file():
            bucket.write(path.relative_to(trained.root).as_posix(), path.read_bytes())
    here, there = (load_run(root).denoiser("c-paper-1") for root in (trained.root, bucket.root))
    images = [serve(denoiser, trained, "c-paper-1") for denoiser in (here, there)]
    assert np.array_equal(*images)


def test_what_does_not_fit_is_said_in_one_sentence(train: Train, tmp_path: Path) -> None:
    trained = train("fedper")
    run = load_run(trained.root)
    with pytest.raises(PhysFedError, match=r"no client 'c9'; it has: c-paper-1, c-paper-2"):
        run.denoiser("c9")
    assert run.denoiser("paper-3").choice.distance is not None
    assert run.denoiser("c-paper-1").choice.policy == "own"
    with pytest.raises(PhysFedError, match="no protocol is named 'paper-9'; there are: unseen-2"):
        run.denoiser(protocol="paper-9")
    with pytest.raises(PhysFedError, match="give one of them"):
        run.denoiser()
    with pytest.raises(PhysFedError, match="leave 'policy' out"):
        run.denoiser("c-paper-1", policy="shared")
    with pytest.raises(PhysFedError, match=r"holds no model\.json: give a run directory"):
        load_run(tmp_path / "nowhere")
    private = trained.root / "checkpoints/round-0001/clients/c-paper-1.safetensors"
    shutil.copy(private, trained.root / "checkpoints/round-0001/server.safetensors")
    with pytest.raises(DamagedError, match=r"server\.safetensors is damaged"):
        run.denoiser("c-paper-1")
    manifest = trained.root / "checkpoints/round-0001/state.json"
    state = json.loads(manifest.read_text())
    del state["parts"], state["checksum"]  # as an earlier version wrote it
    manifest.write_text(json.dumps(state))
    run = load_run(trained.root)
    with pytest.raises(PhysFedError, match=r"does not fit the network .* \(at encoder\."):
        run.denoiser("c-paper-1")
    private.write_bytes(b"no tensors")
    (trained.root / "checkpoints/round-0001/server.safetensors").write_bytes(b"none here")
    with pytest.raises(PhysFedError, match=r"server\.safetensors is damaged"):
        run.denoiser("c-paper-1")
    (trained.root / "checkpoints/round-0001/server.safetensors").unlink()
    with pytest.raises(PhysFedError, match=r"server\.safetensors is not there: copy the run"):
        run.denoiser("c-paper-1")


def test_reports_are_made_as_the_run_made_them(train: Train) -> None:
    run = load_run(train("scan_physfed").root)
    hu = np.full((2, 64, 64), -1000.0)
    hu[:, 16:48, 20:44] = [[[40.3]], [[300.0]]]
    described = run.describe(hu)
    assert len(described.report) == 2
    assert described.embedding.shape == (2, 1, 384)
    rounded = run.describe(np.rint(hu))
    assert described.report == rounded.report
    assert np.array_equal(described.embedding, rounded.embedding)


def test_the_data_are_not_read(train: Train) -> None:
    trained = train("scan_physfed")
    shutil.rmtree(trained.folder / "cache")
    with pytest.raises(PhysFedError):
        read_client_data(trained.folder / "cache" / f"c-{TRAINED[0]}-test.arrow")
    run = load_run(trained.root)
    images = serve(run.denoiser("c-paper-1"), trained, "c-paper-1")
    assert np.isfinite(images).all()
