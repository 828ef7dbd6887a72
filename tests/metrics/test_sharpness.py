"""Edge sharpness: known blurs are found, noise averages out, and a lost edge has no number."""

import math

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from physfed_ray.metrics.edges import Edge, EdgePhantom
from physfed_ray.metrics.phantoms import BACKGROUND_HU
from physfed_ray.metrics.scoring import score_phantom
from physfed_ray.metrics.sharpness import transfer_function

PIXEL_MM = 0.8


def edge_sharpness(images: np.ndarray, edge: Edge, pixel_mm: float) -> dict[str, np.ndarray]:
    """Return the sharpness of repeated scans of a phantom."""
    phantom = EdgePhantom(round(edge.contrast_hu))
    return score_phantom(images, phantom, edge, (-1000.0, 2000.0), pixel_mm, ["mtf"])


def edge_phantom(n: int, contrast: float) -> Edge:
    """Return an edge on a grid."""
    return EdgePhantom(round(contrast)).make(n, PIXEL_MM)


def _blurred(n: int, sigma: float, contrast: float = 120.0) -> np.ndarray:
    return gaussian_filter(edge_phantom(n, contrast).objects[0], sigma)[None]


@pytest.mark.parametrize("n", [128, 256])
@pytest.mark.parametrize("contrast", [120, 900])
@pytest.mark.parametrize("sigma", [0.8, 1.5, 3.0])
def test_a_known_blur_is_found(n: int, contrast: int, sigma: float) -> None:
    """A Gaussian falls to p at sqrt(-ln(p) / 2) / (pi sigma); a pixel adds 1/12 to sigma^2."""
    found = edge_sharpness(_blurred(n, sigma, contrast), edge_phantom(n, contrast), PIXEL_MM)
    whole = math.sqrt(sigma**2 + 1 / 12) * PIXEL_MM
    for level, tolerance in ((50, 0.03), (10, 0.08)):
        expected = math.sqrt(-math.log(level / 100) / 2) / math.pi / whole
        assert found[f"mtf{level}_{contrast}hu_per_mm"] == pytest.approx([expected], rel=tolerance)


def test_the_whole_curve_of_a_blur_is_right() -> None:
    modulation = transfer_function(_blurred(256, 1.5), edge_phantom(256, 120))
    assert modulation is not None
    frequency = np.linspace(0, 0.5, len(modulation))
    expected = np.exp(-2 * (np.pi * 1.5 * frequency) ** 2) * np.sinc(frequency)
    np.testing.assert_allclose(modulation, expected, atol=0.02)
    assert modulation[0] == pytest.approx(1)


def test_a_sharp_edge_is_as_sharp_as_the_grid_allows() -> None:
    edge = edge_phantom(128, 120)
    found = edge_sharpness(edge.objects, edge, PIXEL_MM)
    assert found["mtf50_120hu_per_mm"] == found["mtf10_120hu_per_mm"] == [0.5 / PIXEL_MM]


def test_the_phantom_is_a_disk_with_an_insert_of_the_contrast() -> None:
    edge = edge_phantom(128, 120)
    assert edge.objects[0][0, 0] == -1000
    assert edge.objects[0][64, 20] == pytest.approx(BACKGROUND_HU)
    assert edge.objects[0][edge.distance < edge.radius - 1] == pytest.approx(BACKGROUND_HU + 120)
    excess = (edge.objects[0][edge.distance < 1.2 * edge.radius] - BACKGROUND_HU).sum()
    assert excess / 120 == pytest.approx(np.pi * edge.radius**2, rel=1e-3)
    body = edge.body.sum()
    assert body == pytest.approx(np.pi * (0.42 * 128) ** 2, rel=5e-3)


def test_repeated_scans_average_out_their_noise() -> None:
    clean, edge = _blurred(128, 1.5), edge_phantom(128, 120)
    noise = np.random.default_rng(2).normal(0, 60, (16, 128, 128))
    (expected,) = edge_sharpness(clean, edge, PIXEL_MM)["mtf50_120hu_per_mm"]
    (found,) = edge_sharpness(clean + noise, edge, PIXEL_MM)["mtf50_120hu_per_mm"]
    assert found == pytest.approx(expected, rel=0.1)


def test_a_denoiser_that_is_not_linear_keeps_the_stronger_edge_sharper() -> None:
    """Soft shrinkage of the detail below 150 HU: what PSNR cannot tell from a plain blur."""
    sharpness = []
    for contrast in (120, 900):
        image = edge_phantom(128, contrast).objects[0].astype(np.float64)
        smooth = gaussian_filter(image, 2.0)
        detail = image - smooth
        kept = np.sign(detail) * np.maximum(np.abs(detail) - 150, 0)
        found = edge_sharpness((smooth + kept)[None], edge_phantom(128, contrast), PIXEL_MM)
        sharpness.append(found[f"mtf50_{contrast}hu_per_mm"][0])
    assert sharpness[1] > 1.2 * sharpness[0]


def test_an_edge_that_is_gone_has_no_sharpness() -> None:
    edge = edge_phantom(128, 120)
    erased = np.where(edge.body == 1, BACKGROUND_HU, -1000.0)[None]
    assert np.isnan(edge_sharpness(erased, edge, PIXEL_MM)["mtf50_120hu_per_mm"]).all()
    faint = (BACKGROUND_HU + (edge.objects[0] - BACKGROUND_HU) * 0.05)[None]
    assert np.isnan(edge_sharpness(faint, edge, PIXEL_MM)["mtf10_120hu_per_mm"]).all()


def test_the_pixel_length_scales_the_frequencies() -> None:
    image, edge = _blurred(128, 1.2), edge_phantom(128, 120)
    fine, coarse = edge_sharpness(image, edge, 0.5), edge_sharpness(image, edge, 1.0)
    for name, value in fine.items():
        assert value == pytest.approx(2 * coarse[name])
