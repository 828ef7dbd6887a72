"""The viewer of a run's page: test slices of every client, and one of every unseen protocol."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from physfed_ray.ct.protocol import REFERENCE_SIZE
from physfed_ray.federation.examples import SHOWN, spread
from physfed_ray.pages.viewer import viewer_fragment
from physfed_ray.results.runs import KINDS, POLICIES, ClientEntry, RunResults
from physfed_ray.window import denormalise

MAX_BYTES = 2_500_000
"""What the viewer's pixels may add to ``report.html``."""
_NAMES = {"low": "low dose", "denoised": "denoised", "full": "full dose"}


@dataclass(frozen=True)
class _Slice:
    """One slice, by kind (n, n) HU, its pixel length in mm, and what it is."""

    images: dict[str, NDArray[np.float32]]
    pixel_mm: float
    caption: str


def run_viewer(run: RunResults, policy: str) -> Markup | None:
    """Return the viewer of a run, None where the run kept no images or not all of one size.

    Args:
        run: The run.
        policy: How the unseen protocols that are shown were served.
    """
    found = [*_seen(run), *_unseen(run, policy)]
    found = [found[k] for k in spread(len(found), SHOWN)]
    if len({one.images["low"].shape for one in found}) != 1:
        return None
    return viewer_fragment(
        {name: np.stack([one.images[kind] for one in found]) for kind, name in _NAMES.items()},
        spacing_mm=[(one.pixel_mm, one.pixel_mm) for one in found],
        window_hu=run.window_hu,
        label="Test slices of the clients",
        captions=[one.caption for one in found],
        max_bytes=MAX_BYTES,
    )


def _seen(run: RunResults) -> Iterator[_Slice]:
    clients = [c for c in run.clients if (e := run.example("test", c.id)) and "" in e.denoised]
    room = SHOWN - min(len(run.unseen), SHOWN // 3)
    for client in (clients[k] for k in spread(len(clients), room)):
        stacks = run.stacks(client.id)
        if set(stacks) == set(KINDS):
            count = len(stacks["low"])
            for k in range(count):
                images = {kind: stack[k].astype(np.float32) for kind, stack in stacks.items()}
                yield _slice(client, images, f"{client.label}, slice {k + 1} of {count}")
        else:
            yield from _one(run, "test", client, "", client.label)


def _unseen(run: RunResults, policy: str) -> Iterator[_Slice]:
    how = POLICIES.get(policy, ("",))[0]
    found = [u for u in run.unseen if run.example("unseen", u.id)]
    for entry in (found[k] for k in spread(len(found), SHOWN // 3)):
        caption = f"unseen: {entry.label}" + (f", by {how}" if how else "")
        yield from _one(run, "unseen", entry, policy, caption)


def _one(
    run: RunResults, split: str, entry: ClientEntry, policy: str, caption: str
) -> Iterable[_Slice]:
    """Yield the one slice that every version of a run kept."""
    example = run.example(split, entry.id)
    if example is None or policy not in example.denoised:
        return
    images = {"low": example.low, "denoised": example.denoised[policy], "full": example.full}
    hu = {kind: denormalise(image, run.window_hu) for kind, image in images.items()}
    yield _slice(entry, hu, caption)


def _slice(entry: ClientEntry, images: dict[str, NDArray[np.float32]], caption: str) -> _Slice:
    pixel = entry.protocol["pixel_mm"] * REFERENCE_SIZE / images["low"].shape[-1]
    return _Slice(images, float(pixel), caption)
