"""A, A^T and B: adjointness for every scanner, plane geometry, ASTRA, derivatives."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import example, given, reject, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from physfed_ray.ct import projection
from physfed_ray.ct.attenuation import MU_WATER_PER_MM, inscribed_circle
from physfed_ray.ct.fbp import fbp
from physfed_ray.ct.operator import FanBeam
from physfed_ray.ct.protocol import PRESETS, Protocol
from physfed_ray.errors import PhysFedError

PAPER_1 = PRESETS["paper-1"]
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)]


def ray_by_ray(image: np.ndarray, p: Protocol) -> np.ndarray:
    """Joseph's method, one ray after the other: no batch, no symmetry, no turned images.

    NaN where rounding decides: for rays of exactly 45 degrees, which may be read along the rows or
    along the columns, and for those whose source lies on one of the lines that they cross.
    """
    n, pixel, sums = len(image), p.pixel_at(len(image)), np.zeros((p.views, p.bins))
    x = np.where(inscribed_circle(n), image, 0)
    at = np.arange(n)
    for view, bin_ in np.ndindex(sums.shape):
        angle = math.radians(p.arc_deg) * view / p.views
        u, ahead = (bin_ - (p.bins - 1) / 2) * p.bin_mm, p.source_mm + p.detector_mm
        if p.detector == "arc":
            u, ahead = ahead * math.sin(u / ahead), ahead * math.cos(u / ahead)
        sin, cos = math.sin(angle), math.cos(angle)
        source = np.array([p.source_mm * sin, -p.source_mm * cos])
        way = np.array([u * cos - ahead * sin, u * sin + ahead * cos])
        main = int(abs(way[1]) > abs(way[0]))  # 0: it crosses the columns, 1: the rows
        lines, y = x if main else x.T, (at - (n - 1) / 2) * pixel
        t = ((-y if main else y) - source[main]) / way[main]
        across = source[1 - main] + t * way[1 - main]
        place = across / pixel if main else -across / pixel
        read = [np.interp(at_, np.arange(-1, n + 1), np.pad(line, 1), 0, 0)
                for at_, line in zip(place + (n - 1) / 2, lines, strict=True)]  # fmt: skip
        sums[view, bin_] = np.sum(np.where(t > 0, read, 0))
        sums[view, bin_] *= pixel * np.hypot(*way) / abs(way[main])
        if math.isclose(*np.abs(way), rel_tol=1e-9) or np.abs(t).min() < 1e-9:
            sums[view, bin_] = np.nan
    return sums


def mismatch(operator: FanBeam, device: str = "cpu", seed: int = 0) -> float:
    """|<A x, y> - <x, A^T y>| / (|A x| |y|) for noise x and y in float64."""
    p, n = operator.protocol, operator.n
    random = torch.Generator().manual_seed(seed)
    x = torch.randn(2, 1, n, n, dtype=torch.float64, generator=random).to(device)
    y = torch.randn(2, 1, p.views, p.bins, dtype=torch.float64, generator=random).to(device)
    forward, back = operator.project(x), operator.back_project(y)
    difference = torch.vdot(forward.flatten(), y.flatten()) - torch.vdot(
        x.flatten(), back.flatten()
    )
    return abs(difference.item()) / max(forward.norm().item() * y.norm().item(), 1e-300)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", PRESETS)
def test_back_projection_is_the_adjoint_under_every_preset(name: str, device: str) -> None:
    assert mismatch(FanBeam(PRESETS[name], 33), device) < 1e-12


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", PRESETS)
def test_back_projection_is_the_adjoint_for_every_detector_and_arc(
    name: str, device: str, kind: dict[str, object]
) -> None:
    """A short scan of 240 degrees is one of 180 and the fan, or more, under all but paper-7."""
    few = replace(PRESETS[name], views=20, **kind)
    assert mismatch(FanBeam(few, 33), device) < 1e-12


@st.composite
def scanners(draw: st.DrawFn) -> Protocol:
    """Scanners up to the edge of what is possible: sources that touch the circle, huge bins."""
    pixel = draw(st.floats(0.1, 2))
    radius = 128 * pixel
    source, distance = (radius * draw(st.floats(1 + 1e-9, 5)) for _ in range(2))
    bins, detector = draw(st.integers(2, 40)), draw(st.sampled_from(["flat", "arc"]))
    half = math.asin(radius / source)
    reach, most = source + distance, 20.0 if detector == "flat" else math.pi / 2 / half - 1e-9
    widened = draw(st.floats(1 + 1e-9, most))
    bin_mm = 2 * reach * (math.tan(half) if detector == "flat" else half) / bins * widened
    arc = draw(st.just(360) | st.floats(1e-3, 360))
    try:
        lengths = (pixel, bin_mm, source, distance)
        return Protocol(draw(st.integers(1, 24)), bins, *lengths, 1e5, detector, arc)
    except PhysFedError:  # by rounding
        reject()


@given(protocol=scanners(), n=st.integers(1, 24))
@example(protocol=Protocol(1, 2, 0.1, 100, 20.0, 20.0, 1e5), n=8)  # no ray meets the circle
@example(protocol=Protocol(5, 9, 0.01, 100, 1.2801, 1.2801, 1e5), n=9)
@settings(max_examples=60, deadline=None)
def test_every_possible_scanner_has_an_exact_adjoint_and_equals_the_slow_projector(
    protocol: Protocol, n: int
) -> None:
    operator = FanBeam(protocol, n)
    assert mismatch(operator) < 1e-5
    x = torch.rand(1, 1, n, n, dtype=torch.float64, generator=torch.manual_seed(0))
    slow = ray_by_ray(x[0, 0].numpy(), protocol)
    fast = operator.project(x)[0, 0].numpy()
    clear = np.isfinite(slow)
    np.testing.assert_allclose(fast[clear], slow[clear], atol=1e-6 * protocol.field_radius_mm)


def test_equals_the_slow_projector(scanner: Protocol) -> None:
    x = torch.randn(1, 1, 17, 17, dtype=torch.float64, generator=torch.manual_seed(0))
    fast = FanBeam(scanner, 17).project(x)[0, 0].numpy()
    slow = ray_by_ray(x[0, 0].numpy(), scanner)
    np.testing.assert_allclose(fast, slow, atol=1e-8 * np.abs(slow).max())


@pytest.mark.parametrize(("x", "y"), [(0.0, 0.0), (25.0, -15.0)], ids=["centred", "off-centre"])
def test_line_integrals_of_a_disk_are_its_chords(
    exact, kind: dict[str, object], x: float, y: float
) -> None:
    protocol, radius = replace(PAPER_1, views=16, **kind), 40.0
    mu = MU_WATER_PER_MM * exact.disk(protocol, 256, x, y, radius)
    sinogram = FanBeam(protocol, 256).project(torch.from_numpy(mu)[None, None])[0, 0].numpy()
    expected = MU_WATER_PER_MM * exact.disk_sinogram(protocol, x, y, radius)
    assert np.linalg.norm(sinogram - expected) < 0.01 * np.linalg.norm(expected)
    inside = exact.ray_distance(protocol, x, y) < 0.9 * radius
    error_mm = (sinogram - expected)[inside] / MU_WATER_PER_MM
    assert np.abs(error_mm).mean() < 0.2 * protocol.pixel_mm
    assert abs(error_mm.mean()) < 0.02 * protocol.pixel_mm
    far = exact.ray_distance(protocol, x, y) > radius + 2 * protocol.pixel_mm
    assert sinogram[far].max() == 0


@pytest.mark.parametrize("name", PRESETS)
def test_astra_and_plane_geometry_agree_under_every_preset(exact, name: str) -> None:
    """A smooth object: 0.1% from its exact integrals, 0.5% from ASTRA, which reads square pixels.

    On noise, where no two discretisations agree, the two are 1.5% apart.
    """
    protocol, n = replace(PRESETS[name], views=12), 128
    operator, field = FanBeam(protocol, n), protocol.field_radius_mm
    place = (0.3 * field, 0.2 * field, 0.15 * field)
    smooth = exact.gaussian(protocol, n, *place) * inscribed_circle(n)
    noise = np.random.default_rng(0).random((n, n)) * inscribed_circle(n)
    images = np.stack((smooth, noise)).astype(np.float32)
    ours = operator.project(torch.from_numpy(images)[:, None])[:, 0].numpy()
    astra = projection.project(images, protocol, cuda=False)
    expected = exact.gaussian_sinogram(protocol, *place)
    assert np.linalg.norm(ours[0] - expected) < 1e-3 * np.linalg.norm(expected)
    for image, tolerance in ((0, 0.005), (1, 0.03)):
        difference = np.linalg.norm(ours[image] - astra[image])
        assert difference < tolerance * np.linalg.norm(astra[image])


def test_line_integrals_of_a_smooth_ellipse(exact, kind: dict[str, object]) -> None:
    """A Gaussian of two widths, turned by 30 degrees."""
    protocol, n = replace(PAPER_1, views=12, **kind), 128
    ellipse = (20.0, -10.0, 14.0, 7.0, math.radians(30))
    image = exact.ellipse(protocol, n, *ellipse)
    ours = FanBeam(protocol, n).project(torch.from_numpy(image)[None, None])[0, 0].numpy()
    expected = exact.ellipse_sinogram(protocol, *ellipse)
    assert np.linalg.norm(ours - expected) < 2e-3 * np.linalg.norm(expected)


@pytest.mark.parametrize("name", ["paper-1", "paper-2", "paper-7"])
def test_the_adjoint_of_astra_agrees(exact, name: str) -> None:
    protocol, n = replace(PRESETS[name], views=PRESETS[name].views // 4), 64
    wave = 2 + np.cos(np.linspace(0, 5, protocol.bins))
    sinogram = (2 + np.cos(np.arange(protocol.views)))[:, None] * wave
    ours = FanBeam(protocol, n).back_project(torch.from_numpy(sinogram)[None, None])[0, 0].numpy()
    theirs = projection.back_project(sinogram[None].astype(np.float32), protocol, n)[0]
    theirs = theirs.astype(float) * inscribed_circle(n)
    assert np.linalg.norm(ours - theirs) < 0.02 * np.linalg.norm(theirs)


def test_b_is_the_fbp_and_recovers_a_smooth_object(exact) -> None:
    operator = FanBeam(PAPER_1, 128)
    truth = torch.from_numpy(MU_WATER_PER_MM * exact.gaussian(PAPER_1, 128, 20.0, 10.0, 15.0))
    sinogram = operator.project(truth[None, None].float())
    image = operator.fbp(sinogram)
    assert torch.equal(image[:, 0], fbp(sinogram[:, 0], PAPER_1, 128))
    sharp = operator.fbp(sinogram, kernel_mm=0.0)
    assert torch.equal(sharp[:, 0], fbp(sinogram[:, 0], PAPER_1, 128, kernel_mm=0.0))
    error = (image[0, 0] - truth)[torch.from_numpy(inscribed_circle(128))]
    assert error.abs().max() < 0.01 * truth.max()


@pytest.mark.parametrize("device", DEVICES)
def test_each_is_the_derivative_of_the_other(scanner: Protocol, device: str) -> None:
    operator, random = FanBeam(scanner, 6), torch.Generator().manual_seed(0)
    kind = {"dtype": torch.float64, "generator": random}
    x = torch.randn(2, 1, 6, 6, **kind).to(device).requires_grad_()
    y = torch.randn(2, 1, scanner.views, scanner.bins, **kind).to(device).requires_grad_()
    for function, at in ((operator.project, x), (operator.back_project, y), (operator.fbp, y)):
        assert gradcheck(function, at, fast_mode=True)
        assert gradgradcheck(function, at, fast_mode=True)
    (gradient,) = torch.autograd.grad(operator.project(x), x, y.detach())
    assert torch.equal(gradient, operator.back_project(y.detach()))
    (gradient,) = torch.autograd.grad(operator.back_project(y), y, x.detach())
    assert torch.equal(gradient, operator.project(x.detach()))


def test_all_three_are_linear_and_a_batch_equals_its_slices(small: Protocol) -> None:
    operator = FanBeam(small, 16)
    random = torch.manual_seed(0)
    x = torch.randn(3, 1, 16, 16, generator=random)
    y = torch.randn(3, 1, small.views, small.bins, generator=random)
    for function, of in ((operator.project, x), (operator.back_project, y), (operator.fbp, y)):
        together = function(of)
        one_by_one = torch.cat([function(item[None]) for item in of])
        torch.testing.assert_close(together, one_by_one, rtol=1e-5, atol=1e-5)
        combined = function(2 * of[:1] - of[1:2])
        torch.testing.assert_close(combined, 2 * together[:1] - together[1:2], rtol=1e-4, atol=1e-4)


def test_the_number_of_threads_changes_no_bit(small: Protocol) -> None:
    operator = FanBeam(small, 32)
    x = torch.rand(4, 1, 32, 32, generator=torch.manual_seed(0))

    def both() -> tuple[Tensor, Tensor]:
        y = operator.project(x)
        return y, operator.back_project(y)

    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 2):
            torch.set_num_threads(threads)
            results.append(both())
    finally:
        torch.set_num_threads(before)
    assert all(
        torch.equal(a, b) for other in results[1:] for a, b in zip(results[0], other, strict=True)
    )


def test_outside_the_inscribed_circle_is_air(small: Protocol) -> None:
    operator, outside = FanBeam(small, 16), torch.from_numpy(~inscribed_circle(16))
    x = torch.ones(1, 1, 16, 16)
    beyond = x.masked_fill(outside, torch.nan)
    assert torch.equal(operator.project(beyond), operator.project(x.masked_fill(outside, 0)))
    sinogram = torch.ones(1, 1, small.views, small.bins)
    assert (operator.back_project(sinogram)[0, 0][outside] == 0).all()
    assert (operator.fbp(sinogram)[0, 0][outside] == 0).all()


@pytest.mark.cuda
def test_a_gpu_gives_what_the_cpu_gives(scanner: Protocol) -> None:
    operator = FanBeam(scanner, 32)
    x = torch.rand(3, 1, 32, 32, generator=torch.manual_seed(0))
    y = operator.project(x)
    torch.testing.assert_close(operator.project(x.cuda()).cpu(), y, rtol=1e-4, atol=1e-4)
    for function in (operator.back_project, operator.fbp):
        torch.testing.assert_close(function(y.cuda()).cpu(), function(y), rtol=1e-4, atol=1e-4)


def test_wrong_shapes_and_types_are_refused(small: Protocol) -> None:
    operator = FanBeam(small, 16)
    with pytest.raises(ValueError, match=r"an image of this operator .*not .*float16"):
        operator.project(torch.zeros(1, 1, 16, 16, dtype=torch.half))
    with pytest.raises(ValueError, match=r"a sinogram of this operator .*not \(1, 16, 16\)"):
        operator.fbp(torch.zeros(1, 16, 16))
