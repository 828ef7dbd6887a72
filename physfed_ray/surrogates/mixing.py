"""The hiding of a patient in a host: amplitudes of low frequencies mixed, phases of the host.

Frequency-domain Exchange Style Fusion (FESF; Sun, Yang, Ran, Wang, Yu and Zhang 2024, arXiv
2403.16473), whose image hiding module (IHM) is read here from the abstract and from summaries:

    A_mix = M ((1 - beta) A_host + beta A_patient) + (1 - M) A_host
    x     = F^-1(A_mix exp(i P_host))

M is 1 on a centred square of the lowest frequencies, whose side is the share alpha of the image's.
"""

import torch
from torch import Tensor

from physfed_ray.models.spectra import half_width, interpolate_amplitudes, low_amplitudes

LEAST_AMPLITUDE = 1e-7
"""Below it an amplitude is rounding; images are in [0, 1] and their transform is a mean."""


def low_frequencies(images: Tensor, alpha: float) -> Tensor:
    """Return the amplitudes on the mask M, (N, 1, 2 b + 1, 2 b + 1).

    Args:
        images: (N, 1, n, n) float32.
        alpha: Side of M as a share of the image's, in (0, 1].
    """
    height, width = images.shape[-2:]
    return low_amplitudes(images, half_width(height, width, alpha / 2))


def mix(hosts: Tensor, patients: Tensor, alpha: float, beta: float) -> Tensor:
    """Return surrogates: hosts that carry amplitudes of patients.

    Args:
        hosts: (N, 1, n, n) float32.
        patients: Same shape; number k is hidden in host k.
        alpha: Side of M as a share of the image's, in (0, 1]; 1: all frequencies.
        beta: Share of the patients' amplitudes, in [0, 1]; 0 returns the hosts.

    Returns:
        Same shape; not clipped, because that would change the amplitudes.
    """
    share = torch.full((1, 1, 1, 1), beta)
    return interpolate_amplitudes(hosts, low_frequencies(patients, alpha), share)


def unmixed(surrogates: Tensor, hosts: Tensor, alpha: float, beta: float) -> Tensor:
    """Return the patients' amplitudes as somebody finds them who knows the hosts.

    Args:
        surrogates: (N, 1, n, n) float32.
        hosts: Same shape; number k is that of surrogate k.
        alpha: As in ``mix``.
        beta: As in ``mix``; 0 finds rounding.

    Returns:
        (N, 1, 2 b + 1, 2 b + 1) float32, exact where nothing came after the mixing.
    """
    found = low_frequencies(surrogates, alpha) - (1 - beta) * low_frequencies(hosts, alpha)
    return found.clamp_min(0) / max(beta, LEAST_AMPLITUDE)


def most_alike(surrogates: Tensor, hosts: Tensor) -> Tensor:
    """Return which host each surrogate shows, by the phases of all frequencies, (N,) int64.

    Args:
        surrogates: (N, 1, n, n) float32.
        hosts: (M, 1, n, n) float32, the collection.
    """
    one, other = (_phases(images) for images in (surrogates, hosts))
    return (one @ other.T).argmax(dim=1)


def _phases(images: Tensor) -> Tensor:
    """Return cosines and sines of the phases, (N, 2 n n)."""
    spectrum = torch.fft.rfft2(images.float(), norm="forward").flatten(1)
    unit = spectrum / spectrum.abs().clamp_min(LEAST_AMPLITUDE)
    return torch.cat([unit.real, unit.imag], dim=1)
