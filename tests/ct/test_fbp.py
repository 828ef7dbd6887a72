"""Reconstruction from exact and from projected line integrals."""

import math
from dataclasses import replace

import astra
import numpy as np
import pytest
import torch
from torch.autograd import gradcheck

from physfed_ray.ct import fbp as module
from physfed_ray.ct.attenuation import MU_WATER_PER_MM, inscribed_circle
from physfed_ray.ct.backprojection import back_project_views
from physfed_ray.ct.fbp import fbp, filter_matrix, ramp_filter, ray_weights, view_weight
from physfed_ray.ct.projection import project
from physfed_ray.ct.protocol import PRESETS, Protocol

PAPER_1 = PRESETS["paper-1"]
DENSE = [name for name, protocol in PRESETS.items() if protocol.views >= 360]


def reconstruct(sinogram: np.ndarray, protocol: Protocol, n: int) -> np.ndarray:
    return fbp(torch.from_numpy(np.asarray(sinogram, dtype=np.float32)), protocol, n).numpy()


@pytest.mark.parametrize("name", DENSE)
def test_exact_line_integrals_of_a_smooth_object_give_the_object(exact, name: str) -> None:
    protocol, n = PRESETS[name], 96
    field = protocol.field_radius_mm
    objects = [(0.0, 0.0, 0.2 * field), (0.4 * field, -0.3 * field, 0.12 * field)]
    truth = sum(exact.gaussian(protocol, n, *place) for place in objects)
    sinogram = sum(exact.gaussian_sinogram(protocol, *place) for place in objects)
    error = reconstruct(sinogram[None], protocol, n)[0] - truth
    assert np.abs(error)[inscribed_circle(n)].max() < 0.01 * truth.max()


def all_lines(protocol: Protocol) -> float:
    """The shortest arc that measures every line through the image circle, degrees."""
    return 180 + 2 * math.degrees(math.asin(protocol.field_radius_mm / protocol.source_mm))


@pytest.mark.parametrize("name", ["paper-1", "paper-3", "paper-7"])
def test_a_short_scan_and_a_curved_detector_recover_an_object_as_the_full_circle_does(
    exact, name: str
) -> None:
    full, n = PRESETS[name], 96
    field = full.field_radius_mm
    objects = [(0.4 * field, -0.3 * field, 0.12 * field), (-0.6 * field, 0.4 * field, 0.1 * field)]
    truth = sum(exact.gaussian(full, n, *place) for place in objects)
    errors = {}
    for detector in ("flat", "arc"):
        for arc in (360, 300, all_lines(full)):
            views = round(full.views * arc / 360)
            protocol = replace(full, detector=detector, arc_deg=arc, views=views)
            sinogram = sum(exact.gaussian_sinogram(protocol, *place) for place in objects)
            error = reconstruct(sinogram[None], protocol, n)[0] - truth
            errors[detector, arc] = np.abs(error)[inscribed_circle(n)].max() / truth.max()
    assert max(errors["flat", 360], errors["arc", 360]) < 0.0035
    assert max(errors.values()) < 0.005


@pytest.mark.parametrize("arc", [360, 240])
def test_a_uniform_disk_keeps_its_value_on_a_curved_detector(exact, arc: float) -> None:
    protocol, n, radius = replace(PAPER_1, detector="arc", arc_deg=arc), 128, 60.0
    image = reconstruct(exact.disk_sinogram(protocol, 0, 0, radius)[None], protocol, n)[0]
    x, y = exact.grid(protocol, n)
    assert np.abs(image[np.hypot(x, y) < 0.9 * radius] - 1).max() < 2e-3


def test_half_a_circle_is_enough_for_what_it_encloses(exact) -> None:
    """Every line through the right half meets the source, which goes up there; the left is lost."""
    protocol, n = replace(PAPER_1, views=512, arc_deg=180), 96
    errors = []
    for side in (1, -1):
        objects = [(side * 45.0, 30.0, 9.0), (side * 20.0, -40.0, 6.0)]
        truth = sum(exact.gaussian(protocol, n, *place) for place in objects)
        sinogram = sum(exact.gaussian_sinogram(protocol, *place) for place in objects)
        error = reconstruct(sinogram[None], protocol, n)[0] - truth
        errors.append(np.abs(error)[inscribed_circle(n)].max())
    assert errors[0] < 0.01
    assert errors[1] > 0.1


@pytest.mark.parametrize("detector", ["flat", "arc"])
def test_a_limited_angle_shows_the_edges_that_its_rays_run_along_and_no_others(
    exact, detector: str
) -> None:
    """The central rays of 120 degrees run upwards first, then more and more to the left.

    Stripes lie along the rays of the angle by which they are turned.
    """
    protocol, n = replace(PAPER_1, views=341, detector=detector, arc_deg=120), 128
    for degrees in (20, 60, 100, 140, 160):
        turn = math.radians(degrees)
        truth = exact.stripes(protocol, n, 24.0, turn)
        image = reconstruct(exact.stripes_sinogram(protocol, 24.0, turn)[None], protocol, n)[0]
        expected = truth if degrees <= 100 else 0
        assert np.linalg.norm(image - expected) < 0.02 * np.linalg.norm(truth)


def test_projecting_and_reconstructing_a_smooth_object_gives_the_object(exact) -> None:
    n = 128
    truth = MU_WATER_PER_MM * exact.gaussian(PAPER_1, n, 20.0, 10.0, 15.0)
    image = reconstruct(project(truth[None], PAPER_1), PAPER_1, n)[0]
    assert np.abs(image - truth)[inscribed_circle(n)].max() < 0.01 * truth.max()


def test_a_uniform_disk_keeps_its_value(exact) -> None:
    n, radius = 128, 60.0
    image = reconstruct(exact.disk_sinogram(PAPER_1, 0, 0, radius)[None], PAPER_1, n)[0]
    x, y = exact.grid(PAPER_1, n)
    inside = np.hypot(x, y) < 0.9 * radius
    assert image[inside].mean() == pytest.approx(1, abs=2e-3)
    assert np.abs(image[inside] - 1).max() < 0.02


def test_rows_filtered_part_by_part_are_those_of_all_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sinogram = np.random.default_rng(0).random((2, PAPER_1.views, PAPER_1.bins))
    image = reconstruct(sinogram, PAPER_1, 32)
    monkeypatch.setattr(module, "_ROWS_AT_ONCE", 2 * PAPER_1.views)
    np.testing.assert_array_equal(image, reconstruct(sinogram, PAPER_1, 32))


@pytest.mark.parametrize(("name", "odl_db"), [("paper-1", 33.3), ("paper-2", 25.5)])
def test_sharp_edges_are_no_worse_than_those_of_odl(name: str, odl_db: float) -> None:
    protocol = PRESETS[name]
    truth = shepp_logan(256)
    image = reconstruct(project(truth[None], protocol), protocol, 256)[0]
    assert -10 * np.log10(np.mean((image - truth) ** 2)) > odl_db


def test_a_wider_kernel_trades_sharpness_for_fewer_streaks(exact) -> None:
    n, radius = 256, 30.0
    inside = exact.disk(PAPER_1, n, 0, 0, radius)
    chords = exact.disk_sinogram(PAPER_1, 0, 0, radius)[None]
    few = replace(PAPER_1, views=40)
    edge = (inside > 0) & (inside < 1)
    x, y = exact.grid(PAPER_1, n)
    far = inscribed_circle(n) & (np.hypot(x, y) > 1.5 * radius)
    plain, wide = (
        (
            fbp(torch.from_numpy(chords), PAPER_1, n, kernel_mm=kernel)[0].numpy(),
            fbp(torch.from_numpy(chords[:, :40]), few, n, kernel_mm=kernel)[0].numpy(),
        )
        for kernel in (0.0, 4.0)
    )
    assert np.abs(wide[0] - inside)[edge].mean() > 1.5 * np.abs(plain[0] - inside)[edge].mean()
    assert wide[1][far].std() < 0.7 * plain[1][far].std()


def test_a_source_farther_away_changes_nothing_but_the_geometry(exact) -> None:
    near = Protocol(400, 600, 0.5, 0.6, 150, 150, 1e5)
    far = replace(near, source_mm=1500.0, detector_mm=150.0)
    place = (20.0, 15.0, 8.0)
    images = [reconstruct(exact.gaussian_sinogram(p, *place)[None], p, 64)[0] for p in (near, far)]
    np.testing.assert_allclose(images[0], images[1], atol=0.01)


def test_reconstruction_is_linear_and_batched_slices_equal_single_ones(small: Protocol) -> None:
    torch.manual_seed(0)
    a, b = torch.randn(2, small.views, small.bins)
    together = fbp(torch.stack((a, b, 2 * a - b)), small, 16)
    single = torch.cat([fbp(s[None], small, 16) for s in (a, b)])
    torch.testing.assert_close(together[:2], single, rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(together[2], 2 * single[0] - single[1], rtol=1e-4, atol=1e-7)


def test_a_quarter_turn_of_the_scanner_turns_the_image() -> None:
    protocol = Protocol(12, 24, 0.5, 14.0, 200.0, 150.0, 1e5)
    sinogram = torch.randn(1, 12, 24, generator=torch.manual_seed(0))
    turned = fbp(sinogram.roll(3, dims=1), protocol, 16)
    expected = fbp(sinogram, protocol, 16).rot90(1, (1, 2))
    torch.testing.assert_close(turned, expected, rtol=1e-4, atol=1e-7)


def test_outside_the_inscribed_circle_is_air(small: Protocol) -> None:
    image = fbp(torch.ones(1, small.views, small.bins), small, 16)[0]
    assert (image[torch.from_numpy(~inscribed_circle(16))] == 0).all()


def test_gradients(scanner: Protocol) -> None:
    shape = (2, scanner.views, scanner.bins)
    sinogram = torch.randn(shape, dtype=torch.float64, generator=torch.manual_seed(0))
    assert gradcheck(lambda s: fbp(s, scanner, 8), sinogram.requires_grad_(), fast_mode=True)


def test_the_derivative_is_the_adjoint_for_every_detector_and_arc(scanner: Protocol) -> None:
    torch.manual_seed(0)
    y, at = torch.randn(2, 1, scanner.views, scanner.bins, dtype=torch.float64)
    x = torch.randn(1, 16, 16, dtype=torch.float64)
    (adjoint,) = torch.autograd.grad(fbp(at.requires_grad_(), scanner, 16), at, x)
    forward = torch.vdot(fbp(y, scanner, 16).flatten(), x.flatten()).item()
    assert torch.vdot(adjoint.flatten(), y.flatten()).item() == pytest.approx(forward, rel=1e-10)


@pytest.mark.parametrize("bins", [24, 25])
def test_the_filter_is_the_averaged_ramp_and_holds_the_whole_convolution(bins: int) -> None:
    bin_mm, kernel_mm = 0.4, 0.7
    response = ramp_filter(bins, bin_mm, kernel_mm)
    length = 2 * (len(response) - 1)
    assert length >= 2 * bins - 1
    frequency = torch.fft.rfftfreq(length, bin_mm, dtype=torch.float64)
    expected = frequency * torch.sinc(frequency * kernel_mm)
    torch.testing.assert_close(response[2:], expected[2:], rtol=0.02, atol=0.02 / bin_mm / length)
    assert 0 < response[0] < frequency[1]


def test_the_filter_of_a_curved_detector_is_that_of_kak_and_slaney() -> None:
    """Chapter 3.4.1: (gamma / sin gamma)^2 times the ramp, in the angle of the rays."""
    bins, bin_mm, radius = 24, 9.0, 200.0
    response = ramp_filter(bins, bin_mm, 0.0, curved_mm=radius)
    kernel = torch.fft.irfft(response)[:bins] / bin_mm
    step = bin_mm / radius
    expected = torch.zeros(bins, dtype=torch.float64)
    expected[0] = 1 / (4 * step**2)
    odd = torch.arange(1, bins, 2, dtype=torch.float64)
    expected[1::2] = -1 / (math.pi * torch.sin(odd * step)) ** 2
    torch.testing.assert_close(kernel, expected / radius**2, rtol=1e-9, atol=1e-12)
    far = ramp_filter(bins, bin_mm, 0.7, curved_mm=1e7)
    torch.testing.assert_close(far, ramp_filter(bins, bin_mm, 0.7), rtol=1e-6, atol=1e-9)


@pytest.mark.cuda
@pytest.mark.skipif(not astra.use_cuda(), reason="ASTRA sees no CUDA device")
def test_astra_fbp_cuda_gives_the_same_image(exact) -> None:
    n, radius = 128, PAPER_1.field_radius_mm
    sinogram = exact.gaussian_sinogram(PAPER_1, 20.0, 10.0, 15.0).astype(np.float32)
    angles = np.arange(PAPER_1.views) * 2 * np.pi / PAPER_1.views
    volume = astra.create_vol_geom(n, n, -radius, radius, -radius, radius)
    fan = PAPER_1.bin_mm, PAPER_1.bins, angles, PAPER_1.source_mm, PAPER_1.detector_mm
    projector = astra.create_projector("cuda", astra.create_proj_geom("fanflat", *fan), volume)
    _, theirs = astra.create_reconstruction("FBP_CUDA", projector, sinogram)
    ours = fbp(torch.from_numpy(sinogram)[None], PAPER_1, n, kernel_mm=0.0)[0].numpy()
    assert np.abs(ours - theirs)[inscribed_circle(n)].max() < 0.01


def shepp_logan(n: int) -> np.ndarray:
    """The modified Shepp-Logan phantom sampled at pixel centres, (n, n) float32 in [0, 1]."""
    ellipses = [
        (1.00, 0.6900, 0.9200, 0.00, 0.0000, 0),
        (-0.8, 0.6624, 0.8740, 0.00, -0.0184, 0),
        (-0.2, 0.1100, 0.3100, 0.22, 0.0000, -18),
        (-0.2, 0.1600, 0.4100, -0.22, 0.0000, 18),
        (0.10, 0.2100, 0.2500, 0.00, 0.3500, 0),
        (0.10, 0.0460, 0.0460, 0.00, 0.1000, 0),
        (0.10, 0.0460, 0.0460, 0.00, -0.1000, 0),
        (0.10, 0.0460, 0.0230, -0.08, -0.6050, 0),
        (0.10, 0.0230, 0.0230, 0.00, -0.6060, 0),
        (0.10, 0.0230, 0.0460, 0.06, -0.6050, 0),
    ]
    centre = (np.arange(n) - (n - 1) / 2) * 2 / n
    x, y = centre[None, :], -centre[:, None]
    image = np.zeros((n, n), dtype=np.float32)
    for value, a, b, x0, y0, degrees in ellipses:
        turn = np.deg2rad(degrees)
        along = (x - x0) * np.cos(turn) + (y - y0) * np.sin(turn)
        across = (y - y0) * np.cos(turn) - (x - x0) * np.sin(turn)
        image += np.float32(value) * ((along / a) ** 2 + (across / b) ** 2 <= 1)
    return np.clip(image, 0, 1)


def test_the_filter_as_a_matrix_makes_the_same_image(scanner: Protocol) -> None:
    sinogram = torch.randn(2, scanner.views, scanner.bins, generator=torch.manual_seed(0)).double()
    for kernel_mm in (0.0, 9.0):
        matrix = filter_matrix(scanner, 16, kernel_mm)
        rows = sinogram * ray_weights(scanner, sinogram) @ matrix.T
        image = back_project_views(rows, scanner, 16) * view_weight(scanner)
        torch.testing.assert_close(image, fbp(sinogram, scanner, 16, kernel_mm))
