"""Score images with metrics: in chunks, each shared intermediate result computed once."""

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from physfed_ray.errors import PhysFedError
from physfed_ray.metrics.base import Context, Images, Metric, Scores, SetMetric, metric_name
from physfed_ray.metrics.phantoms import Made, Phantom
from physfed_ray.metrics.pixelwise import in_window
from physfed_ray.metrics.registry import STANDARD, measured, phantom_metrics, slice_metrics
from physfed_ray.window import Window, denormalise

_CHUNK_PIXELS = 1 << 19  # about 32 slices of 128 x 128: the working set stays near the cache


def score_slices(
    denoised: NDArray[np.float32],
    reference: NDArray[np.float32],
    body: NDArray[np.uint8] | NDArray[np.bool_],
    window_hu: Window,
    clinical_windows: Mapping[str, Window],
    pixel_mm: float = math.nan,
    optional: Sequence[str] = (),
) -> Scores:
    """Score slices with every standard metric, and with those that are asked for.

    Args:
        denoised: Images, (N, n, n) float32, 0 and 1 are the ends of ``window_hu``.
        reference: Full-dose images, same shape and scale.
        body: Not 0 on the patient's body, (N, n, n).
        window_hu: The experiment's window in HU.
        clinical_windows: Named windows in HU; the number's name carries the window. What the
            experiment's window has cut off is missing in them as well.
        pixel_mm: Pixel length, mm; some optional metrics need it.
        optional: Further names of the registry; metrics with a phantom are left out.

    Returns:
        Each number, (N,) float64: ``psnr``, ``ssim``, ``rmse_hu``, ``psnr_body``, ``ssim_body``,
        then ``psnr[lo,hi]`` and so on for every clinical window, then the optional ones. A number
        of all slices together is ().

    Raises:
        PhysFedError: A metric does not return one number a slice.
    """
    groups = [slice_metrics(STANDARD), *(slice_metrics([name]) for name in optional)]
    parts: list[Scores] = []
    step = max(1, _CHUNK_PIXELS // (denoised.shape[-1] * denoised.shape[-2]))
    step -= step % 4 if step > 4 else 0  # a metric may take slices four at a time, as FSIM does
    for start in range(0, len(denoised), step):
        rows = slice(start, start + step)
        units = denoised[rows], reference[rows]
        x, y = (denormalise(np.asarray(unit), window_hu) for unit in units)
        context = Context(window_hu, np.asarray(body[rows]), pixel_mm)
        # The images are on the network's scale already: HU and back would cost the last bits.
        exact = tuple(torch.from_numpy(np.array(u, dtype=np.float64)).clamp_(0, 1) for u in units)
        context.keep(in_window, x, y, (exact[0], exact[1]))
        found: Scores = {}
        for metrics in groups:
            found |= _measure(metrics, x, y, context, clinical_windows.values())
        parts.append(found)
    if not parts:
        return {}
    scores = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    for name, metric, _ in measured(optional, clinical_windows):
        if isinstance(metric, SetMetric):
            scores[name] = np.array(metric.of_set(scores[name]), np.float64)
    return scores


def _measure(
    metrics: Sequence[Metric],
    denoised: Images,
    reference: Images,
    context: Context,
    windows: Iterable[Window],
) -> Scores:
    """Measure a chunk in the experiment's window, then in the clinical ones.

    A metric of a set leaves the features of its slices.
    """
    count = len(denoised)
    scores = {m.name: _numbers(m, denoised, reference, context, count) for m in metrics}
    clinical = [metric for metric in metrics if metric.clinical]
    for window in windows if clinical else ():
        inside = context.within(window)
        for metric in clinical:
            name = metric_name(metric.name, window)
            scores[name] = _numbers(metric, denoised, reference, inside, count)
    return scores


def score_phantom(
    denoised: Images,
    phantom: Phantom,
    made: Made,
    window_hu: Window,
    pixel_mm: float,
    names: Sequence[str],
) -> Scores:
    """Measure what there is to measure on the scans of a phantom.

    Args:
        denoised: The scans, (K N, n, n) float32 HU: N of each of its K objects.
        phantom: The phantom.
        made: The same on the images' grid.
        window_hu: The experiment's window in HU.
        pixel_mm: Pixel length, mm.
        names: Names of the registry; those metrics are measured that want this phantom.

    Returns:
        One number for all scans, (1,) float64, by name.

    Raises:
        PhysFedError: A metric does not return one number.
    """
    reference = np.repeat(made.objects, len(denoised) // len(made.objects), axis=0)
    body = np.repeat(made.body[None], len(denoised), axis=0)
    context = Context(window_hu, body, pixel_mm, made)
    return {
        metric.name: _numbers(metric, denoised, reference, context, 1)
        for metric in phantom_metrics(names)
        if metric.phantom == phantom
    }


def _numbers(
    metric: Metric, denoised: Images, reference: Images, context: Context, count: int
) -> NDArray[np.float64]:
    """Return a metric's numbers, (count,) float64; of a set, the slices' features (count, ...)."""
    if isinstance(metric, SetMetric):
        features = np.asarray(metric.features(denoised, reference, context), np.float64)
        if features.shape[:1] != (count,):
            raise PhysFedError(
                f"the metric '{metric.name}' returned features of shape {features.shape} for "
                f"{count} slices; it must return a row of them for each slice"
            )
        return features
    values = np.asarray(metric(denoised, reference, context), np.float64)
    if values.shape != (count,):
        what = "one number" if metric.phantom is not None else "one number a slice"
        raise PhysFedError(
            f"the metric '{metric.name}' returned an array of shape {values.shape} for {count} "
            f"slices; it must return {what}"
        )
    return values
