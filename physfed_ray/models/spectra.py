"""Low frequencies of images: the amplitudes that FedDG shows to other clients, and mixes.

The Fourier transform is that of torch with ``norm="forward"``, so that the amplitudes of images of
different sizes are comparable; the one at frequency 0 is the mean's absolute value.
"""

import torch
from torch import Tensor


def half_width(height: int, width: int, share: float) -> int:
    """Return b, with which a window of (2b + 1) x (2b + 1) frequencies is centred on zero.

    Args:
        height: Of the image, pixels.
        width: Of the image, pixels.
        share: b as a share of the shorter side, in [0, 0.5).
    """
    return int(min(height, width) * share)


def low_amplitudes(images: Tensor, b: int) -> Tensor:
    """Return the amplitudes of the lowest frequencies, rows and columns from -b to b.

    Args:
        images: (..., h, w) float32, h and w above 2 b.
        b: Half-width of the window.

    Returns:
        (..., 2 b + 1, 2 b + 1) float32, row and column 0 are frequency 0.
    """
    at = _frequencies(b, images.device)
    return _transform(images)[..., at[:, None], at].abs()


def interpolate_amplitudes(images: Tensor, other: Tensor, share: Tensor) -> Tensor:
    """Move the amplitudes of the lowest frequencies to other ones, and keep all phases.

    Args:
        images: (..., h, w) float32.
        other: Amplitudes of ``low_amplitudes``, (..., 2 b + 1, 2 b + 1) float32.
        share: lambda, (..., 1, 1) float32: 0 returns the images, 1 takes the other amplitudes.

    Returns:
        (..., h, w) float32.
    """
    spectrum, at = _transform(images), _frequencies(other.shape[-1] // 2, images.device)
    own = spectrum[..., at[:, None], at]
    mixed = torch.lerp(own.abs(), other, share)
    spectrum[..., at[:, None], at] = torch.polar(mixed, own.angle())
    mixed_images: Tensor = torch.fft.ifft2(spectrum, norm="forward").real
    return mixed_images


def _transform(images: Tensor) -> Tensor:
    spectrum: Tensor = torch.fft.fft2(images.float(), norm="forward")
    return spectrum


def _frequencies(b: int, device: torch.device) -> Tensor:
    """Return the indices of the frequencies from 0 to b and from -b to -1."""
    return torch.cat([torch.arange(b + 1, device=device), torch.arange(-b, 0, device=device)])
