"""HU in and HU out: the window, the batches, the reports, the threads."""

from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from physfed_ray.errors import PhysFedError
from physfed_ray.serving.trained import load_run
from tests.serving.conftest import DIM, SIZE, Trained, in_hu

Train = Callable[..., Trained]


def test_what_lies_outside_the_window_comes_back_as_it_was(train: Train) -> None:
    trained = train("fedavg")
    denoiser = load_run(trained.root).denoiser("c-paper-1")
    hu = in_hu(trained.images["c-paper-1"].low)
    clipped = hu.copy()
    hu[:, 3, 3], hu[:, 4, 4] = 3071.0, -1024.0
    clipped[:, 3, 3], clipped[:, 4, 4] = 2000.0, -1000.0
    denoised, expected = denoiser(hu), denoiser(clipped)
    assert denoised.dtype == np.float32
    assert (denoised[:, 3, 3] == 3071).all()
    assert (denoised[:, 4, 4] == -1024).all()
    inside = (hu >= -1000) & (hu <= 2000)
    assert np.array_equal(denoised[inside], expected[inside])
    assert (np.abs(denoised - hu)[inside] > 1e-3).mean() > 0.5
    assert denoised[inside].min() >= -1000
    assert denoised[inside].max() <= 2000


def test_normalising_and_back_gives_what_was_there(train: Train) -> None:
    denoiser = load_run(train("fedavg").root).denoiser("c-paper-1")
    hu = np.linspace(-1200, 2500, 4096).reshape(1, 64, 64)
    back = denoiser.denormalise(denoiser.normalise(hu))
    np.testing.assert_allclose(back, hu.clip(-1000, 2000), atol=2e-4)


def test_images_are_denoised_in_batches_as_together(train: Train) -> None:
    trained = train("fedper")
    denoiser = load_run(trained.root).denoiser("c-paper-2")
    hu = in_hu(trained.images["c-paper-2"].low)
    assert len(hu) > 8
    apart = np.concatenate([denoiser(hu[:8]), denoiser(hu[8:])])
    assert np.array_equal(denoiser(hu), apart)
    assert not np.array_equal(hu, apart)


def test_a_report_is_asked_for_by_the_methods_that_read_it_alone(train: Train) -> None:
    trained = train("scan_physfed")
    denoiser = load_run(trained.root).denoiser("c-paper-1")
    data = trained.images["c-paper-1"]
    hu = in_hu(data.low)
    with pytest.raises(PhysFedError, match=r"SCAN-PhysFed reads the report .* \(9, 1, 8\)"):
        denoiser(hu)
    with pytest.raises(PhysFedError, match=r"must have the shape \(9, 1, 8\) .* not \(9, 8\)"):
        denoiser(hu, embedding=data.embedding[:, 0])
    other = denoiser(hu, embedding=5 * data.embedding + 1)
    assert not np.array_equal(denoiser(hu, embedding=data.embedding), other)


def test_without_its_anatomy_the_method_reads_no_report(train: Train) -> None:
    trained = train("scan_physfed", settings={"anatomy": False})
    denoiser = load_run(trained.root).denoiser(protocol="unseen-2")
    assert denoiser.choice.policy == "pvqs"
    hu = in_hu(trained.images["unseen-2"].low)
    anything = np.ones((len(hu), 1, DIM))
    assert np.array_equal(denoiser(hu), denoiser(hu, embedding=anything))


@pytest.mark.parametrize("shape", [(SIZE, SIZE), (2, SIZE, SIZE + 1), (0, SIZE, SIZE)])
def test_images_of_another_shape_are_refused(shape: tuple[int, ...], train: Train) -> None:
    denoiser = load_run(train("fedavg").root).denoiser("c-paper-1")
    with pytest.raises(PhysFedError, match=r"must have the shape \(N, 32, 32\)"):
        denoiser(np.zeros(shape))


def test_numbers_that_are_none_are_refused(train: Train) -> None:
    denoiser = load_run(train("fedavg").root).denoiser("c-paper-1")
    with pytest.raises(PhysFedError, match="must be finite"):
        denoiser(np.full((1, SIZE, SIZE), np.nan))


def test_threads_are_those_of_the_run_and_only_for_a_while(train: Train) -> None:
    trained = train("fedavg")
    run = load_run(trained.root)
    seen: list[int] = []
    for threads in (None, 2):
        denoiser = run.denoiser("c-paper-1", threads=threads)
        encoder = denoiser.network.get_submodule("encoder")
        encoder.register_forward_hook(lambda *_: seen.append(torch.get_num_threads()))
        before = torch.get_num_threads()
        torch.set_num_threads(3)
        denoiser(in_hu(trained.images["c-paper-1"].low[:1]))
        assert torch.get_num_threads() == 3
        torch.set_num_threads(before)
    assert seen == [run.card.training.threads, 2]


def test_it_says_what_it_is_and_trains_nothing(train: Train) -> None:
    denoiser = load_run(train("fedper").root).denoiser("c-paper-2", device="cpu")
    assert repr(denoiser) == "<Denoiser FedPer: the model of client c-paper-2>"
    assert denoiser.device == "cpu"
    assert not denoiser.network.training
    assert not any(p.requires_grad or p.grad is not None for p in denoiser.network.parameters())


@pytest.mark.parametrize("backbone", ["red_cnn", "uformer"])
@pytest.mark.parametrize(("shape", "spacing_mm"), [((37, 29), (0.8, 0.8)), ((33, 50), (0.9, 0.6))])
def test_slices_of_any_matrix_come_back_at_their_own_pixels(
    shape: tuple[int, int], spacing_mm: tuple[float, float], backbone: str, train: Train
) -> None:
    denoiser = load_run(train("fedper", backbone).root).denoiser("c-paper-1")
    hu = np.random.default_rng(1).normal(40, 60, (3, *shape)).astype(np.float32)
    hu[:, 5, 7], hu[:, 6, 8] = 2500, -1100
    for rule in ("own", "trained"):
        denoised = denoiser(hu, spacing_mm, rule=rule)
        assert (denoised.dtype, denoised.shape) == (np.float32, hu.shape)
        assert (denoised[:, 5, 7] == 2500).all()
        assert (denoised[:, 6, 8] == -1100).all()
        assert (np.abs(denoised - hu) > 0.01).mean() > 0.5
    together = denoiser(hu, spacing_mm, batch=3)
    np.testing.assert_allclose(together, denoiser(hu, spacing_mm), atol=0.05)
    np.testing.assert_array_equal(denoiser(hu[0], spacing_mm), denoiser(hu, spacing_mm)[0])


@pytest.mark.parametrize("rule", ["own", "trained"])
@pytest.mark.parametrize(("shape", "spacing_mm"), [((37, 29), (0.8, 0.8)), ((33, 50), (0.9, 0.6))])
def test_a_network_that_changes_nothing_gives_the_very_hu(
    shape: tuple[int, int], spacing_mm: tuple[float, float], rule: str, train: Train
) -> None:
    denoiser = load_run(train("fedper").root).denoiser("c-paper-1")
    for parameter in denoiser.network.get_submodule("decoder.layers.4").parameters():
        parameter.zero_()
    hu = np.random.default_rng(1).uniform(-1100, 2100, (2, *shape)).astype(np.float32)
    np.testing.assert_array_equal(denoiser(hu, spacing_mm, rule=rule), hu)


def test_of_a_series_the_report_is_made_here(train: Train) -> None:
    trained = train("scan_physfed")
    run = load_run(trained.root)
    denoiser = run.denoiser("c-paper-1")
    asked = []

    def describe(hu: np.ndarray) -> object:
        asked.append(hu.shape)
        data = trained.images["c-paper-1"]
        return SimpleNamespace(embedding=data.embedding[: len(hu)], mask=data.embedding_mask[:1])

    denoiser._describe = describe  # the true one wants an embedding of 384 numbers
    hu = np.full((2, 40, 60), 30.0)
    assert denoiser(hu, (0.7, 0.7)).shape == hu.shape
    assert asked == [(1, SIZE, SIZE)] * 2


def test_what_does_not_go_with_a_spacing_is_refused(train: Train) -> None:
    denoiser = load_run(train("fedavg").root).denoiser("c-paper-1")
    hu = np.zeros((1, 40, 40))
    for arguments, said in (
        ({"spacing_mm": (0.7,)}, "two lengths in mm"),
        ({"spacing_mm": (0.7, 0.0)}, "two lengths in mm"),
        ({"spacing_mm": (0.7, 0.7), "fields": {"sigma": hu}}, "leave 'fields' out"),
        ({"spacing_mm": (0.7, 0.7), "rule": "best"}, "unknown rule 'best'"),
        ({"spacing_mm": (0.7, 0.7), "batch": 0}, "at least one slice"),
        ({}, "give the spacing of the pixels"),
    ):
        with pytest.raises(PhysFedError, match=said):
            denoiser(hu, **arguments)
    with pytest.raises(PhysFedError, match=r"shape \(N, h, w\) or \(h, w\)"):
        denoiser(np.zeros(5), (0.7, 0.7))
