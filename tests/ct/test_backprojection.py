"""The batched back projection against a slow one, and its adjoint."""

import math

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from physfed_ray.ct.attenuation import inscribed_circle
from physfed_ray.ct.backprojection import back_project_pixelwise, back_project_views
from physfed_ray.ct.protocol import Protocol


def view_by_view(sinogram: Tensor, p: Protocol, n: int) -> Tensor:
    """The same in a few lines: one view after the other, no blocks, no symmetry, no adjoint."""
    centre = (torch.arange(n, dtype=torch.float64) - (n - 1) / 2) * p.pixel_at(n)
    x, y, image = centre[None, :], -centre[:, None], torch.zeros(len(sinogram), n, n).double()
    for view in range(p.views):
        angle = math.radians(p.arc_deg) * view / p.views
        along_detector = x * math.cos(angle) + y * math.sin(angle)
        depth = p.source_mm - x * math.sin(angle) + y * math.cos(angle)
        reach, weight = p.source_mm + p.detector_mm, (p.source_mm / depth) ** 2
        position = along_detector * reach / depth / p.bin_mm
        if p.detector == "arc":
            position = torch.atan2(along_detector, depth) * reach / p.bin_mm
            weight = p.source_mm**2 / (along_detector**2 + depth**2)
        position = (position + (p.bins - 1) / 2).clamp(0, p.bins - 1)
        lower = position.long().clamp(max=p.bins - 2)
        share, values = position - lower, sinogram[:, view].double()
        read = values[:, lower] * (1 - share) + values[:, lower + 1] * share
        image += read * weight
    return image * torch.from_numpy(inscribed_circle(n))


@pytest.mark.parametrize("n", [16, 17])
def test_equals_the_view_by_view_reference(scanner: Protocol, n: int) -> None:
    sinogram = torch.randn(3, scanner.views, scanner.bins, generator=torch.manual_seed(0))
    expected = view_by_view(sinogram, scanner, n)
    image = back_project_views(sinogram, scanner, n)
    assert image.dtype == torch.float32
    torch.testing.assert_close(image, expected.float(), rtol=1e-4, atol=2e-4)
    exact = back_project_views(sinogram.double(), scanner, n)
    torch.testing.assert_close(exact, expected, rtol=1e-10, atol=1e-10)


def test_many_views_run_in_blocks() -> None:
    protocol = Protocol(4 * 37, 24, 0.5, 14.0, 200.0, 150.0, 1e5)
    sinogram = torch.randn(1, protocol.views, 24, generator=torch.manual_seed(0)).double()
    expected = view_by_view(sinogram, protocol, 12)
    torch.testing.assert_close(back_project_views(sinogram, protocol, 12), expected)


def test_the_derivative_is_the_exact_adjoint(scanner: Protocol) -> None:
    torch.manual_seed(0)
    y = torch.randn(2, scanner.views, scanner.bins, dtype=torch.float64, requires_grad=True)
    x = torch.randn(2, 16, 16, dtype=torch.float64)
    product = (back_project_views(y, scanner, 16) * x).sum()
    (adjoint_of_x,) = torch.autograd.grad(product, y)
    assert torch.vdot(adjoint_of_x.flatten(), y.flatten()).item() == pytest.approx(product.item())


def test_gradients_of_first_and_second_order(scanner: Protocol) -> None:
    torch.manual_seed(0)
    y = torch.randn(2, scanner.views, scanner.bins, dtype=torch.float64, requires_grad=True)
    run = lambda s: back_project_views(s, scanner, 8)  # noqa: E731
    assert gradcheck(run, y, fast_mode=True)
    assert gradgradcheck(run, y, fast_mode=True)


def test_a_batch_equals_its_slices(small: Protocol) -> None:
    sinogram = torch.randn(5, small.views, small.bins, generator=torch.manual_seed(0))
    together = back_project_views(sinogram, small, 16)
    one_by_one = torch.cat([back_project_views(s[None], small, 16) for s in sinogram])
    torch.testing.assert_close(together, one_by_one, rtol=1e-5, atol=1e-5)


def test_weights_of_views_and_pixels_multiply_what_a_pixel_reads(scanner: Protocol) -> None:
    rng = torch.manual_seed(0)
    sinogram = torch.randn(2, scanner.views, scanner.bins, generator=rng).double()
    weights = torch.rand(scanner.views, 16, 16, generator=rng).double()
    expected = torch.zeros(2, 16, 16).double()
    for view in range(scanner.views):
        alone = torch.zeros_like(sinogram)
        alone[:, view] = sinogram[:, view]
        expected += weights[view] * back_project_views(alone, scanner, 16)
    image = back_project_pixelwise(sinogram, weights, scanner, 16)
    torch.testing.assert_close(image, expected)


def test_gradients_of_such_weights() -> None:
    many = Protocol(20, 8, 0.5, 42.0, 200.0, 150.0, 1e5)  # more views than a block has
    rng = torch.manual_seed(0)
    sinogram = torch.randn(2, 20, 8, generator=rng).double().requires_grad_()
    weights = torch.rand(20, 4, 4, generator=rng).double().requires_grad_()
    run = lambda s, w: back_project_pixelwise(s, w, many, 4)  # noqa: E731
    assert gradcheck(run, (sinogram, weights), fast_mode=True)


@pytest.mark.cuda
def test_a_gpu_gives_what_the_cpu_gives(small: Protocol) -> None:
    sinogram = torch.randn(2, small.views, small.bins, generator=torch.manual_seed(0))
    expected = back_project_views(sinogram, small, 16)
    image = back_project_views(sinogram.cuda(), small, 16)
    torch.testing.assert_close(image.cpu(), expected, rtol=1e-4, atol=1e-4)
