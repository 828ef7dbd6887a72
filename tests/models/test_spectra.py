"""Low frequencies: what is published, what is mixed, and what stays as it was."""

import numpy as np
import pytest
import torch

from physfed_ray.models.spectra import half_width, interpolate_amplitudes, low_amplitudes

shapes = pytest.mark.parametrize(("height", "width", "b"), [(16, 16, 0), (17, 20, 3), (24, 15, 7)])


def images(height: int, width: int, count: int = 2) -> torch.Tensor:
    rng = torch.Generator().manual_seed(height)
    return torch.rand(count, 1, height, width, generator=rng) - 0.3


def spectrum(image: torch.Tensor) -> np.ndarray:
    """Return the spectrum with frequency 0 in the middle, not normalised, in float64."""
    return np.fft.fftshift(np.fft.fft2(image.double().numpy()), axes=(-2, -1))


def window(height: int, width: int, b: int) -> np.ndarray:
    """Return which frequencies around the middle are within b of it."""
    rows, columns = np.ogrid[:height, :width]
    return (abs(rows - height // 2) <= b) & (abs(columns - width // 2) <= b)


def test_half_width_is_a_share_of_the_shorter_side() -> None:
    assert half_width(256, 256, 0.01) == 2
    assert half_width(128, 300, 0.01) == 1
    assert half_width(64, 64, 0.01) == 0
    assert half_width(9, 7, 0.49) == 3


@shapes
def test_amplitudes_are_those_around_the_middle(height: int, width: int, b: int) -> None:
    x = images(height, width)
    inside = np.abs(spectrum(x))[..., window(height, width, b)] / (height * width)
    expected = np.fft.ifftshift(inside.reshape(2, 1, 2 * b + 1, 2 * b + 1), axes=(-2, -1))
    found = low_amplitudes(x, b)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    torch.testing.assert_close(found[..., 0, 0], x.mean((-2, -1)).abs())


@shapes
def test_share_0_is_the_identity(height: int, width: int, b: int) -> None:
    x = images(height, width)
    other = torch.rand(2, 1, 2 * b + 1, 2 * b + 1)
    mixed = interpolate_amplitudes(x, other, torch.zeros(2, 1, 1, 1))
    torch.testing.assert_close(mixed, x, atol=1e-6, rtol=0)


@shapes
@pytest.mark.parametrize("share", [0.25, 1.0])
def test_amplitudes_move_within_the_window_and_phases_stay(
    height: int, width: int, b: int, share: float
) -> None:
    x, y = images(height, width), images(height, width, 4)[2:]
    mixed = interpolate_amplitudes(x, low_amplitudes(y, b), torch.full((2, 1, 1, 1), share))
    before, after, other = spectrum(x), spectrum(mixed), spectrum(y)
    at = window(height, width, b)
    expected = np.where(at, (1 - share) * abs(before) + share * abs(other), abs(before))
    assert not np.allclose(expected[..., at], abs(before)[..., at], rtol=1e-3)
    np.testing.assert_allclose(abs(after), expected, atol=1e-4)
    np.testing.assert_allclose(after / abs(after), before / abs(before), atol=1e-3)


def test_each_image_has_its_own_share_and_partner() -> None:
    x = images(16, 16)
    other = torch.stack([torch.full((1, 3, 3), 0.5), torch.full((1, 3, 3), 0.1)])
    share = torch.tensor([1.0, 0.5]).view(2, 1, 1, 1)
    together = interpolate_amplitudes(x, other, share)
    for i in range(2):
        alone = interpolate_amplitudes(x[i : i + 1], other[i : i + 1], share[i : i + 1])
        torch.testing.assert_close(together[i : i + 1], alone)


def test_half_precision_comes_out_in_float32() -> None:
    x = images(16, 16).bfloat16()
    assert low_amplitudes(x, 1).dtype == torch.float32
    mixed = interpolate_amplitudes(x, torch.ones(2, 1, 3, 3), torch.zeros(2, 1, 1, 1))
    torch.testing.assert_close(mixed, x.float(), atol=1e-6, rtol=0)
