"""The last evaluation: seen protocols, and unseen ones under every serving policy.

Policies for an unseen protocol:

* ``shared``: the shared network as it is, for methods that keep nothing private.
* ``mean_of_scores``: the mean of all local models' scores (the paper's baseline, section 4.2.2).
* ``nearest_protocol``: the local model of the client with the nearest normalised protocol.
* ``ensemble``: the mean of all local models' images.
* ``pvqs``: eq. 7 of Yang et al. 2025: the codebook's nearest entry, decoded by its owner. The
  features that travel to the owner include the backbone's skips, with RED-CNN the image itself.
* ``oracle``: the local model with the best PSNR there, which nobody can know beforehand.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch.utils.dlpack import from_dlpack

from physfed_ray.federation.client.inference import EVALUATION_BATCH
from physfed_ray.federation.client.phantoms import phantoms
from physfed_ray.federation.orders import ClientEvaluation
from physfed_ray.federation.record import score_rows
from physfed_ray.federation.rounds import Rounds
from physfed_ray.federation.routes import Route, nearest_client
from physfed_ray.federation.runtime import Call
from physfed_ray.federation.tree import TreeSum
from physfed_ray.metrics.base import Scores
from physfed_ray.metrics.phantoms import Phantom
from physfed_ray.rundir.long_table import MetricRow

SliceRow = tuple[str, str, str, int, str, float]


@dataclass
class FinalResults:
    """What the last evaluation found: rows for the two tables, images, and routes."""

    rows: list[MetricRow] = field(default_factory=list)
    slices: list[SliceRow] = field(default_factory=list)
    examples: dict[str, np.ndarray] = field(default_factory=dict)
    routes: dict[str, Route] = field(default_factory=dict)
    nearest: dict[str, int] = field(default_factory=dict)

    def add(self, number: int, client: str, split: str, evaluation: ClientEvaluation) -> None:
        """Add one client's or protocol's evaluation of a split."""
        self.rows += score_rows(number, client, split, evaluation.scores)
        for name, values in evaluation.scores.items():
            if not values.ndim:  # of all slices together: no slice has a share in it
                continue
            prefix, _, metric = name.rpartition("/")
            where = f"{split}/{prefix}" if prefix else split
            self.slices += [
                (client, where, patient, number_of, metric, float(value))
                for patient, number_of, value in zip(
                    evaluation.patients, evaluation.slices, values, strict=True
                )
            ]
        for name, image in evaluation.examples.items():
            whole = image.dtype == np.int16
            self.examples[f"{split}/{client}/{name}"] = np.asarray(
                image, np.int16 if whole else np.float32
            )


def evaluate_all(rounds: Rounds, *, tested: bool = True) -> FinalResults:
    """Evaluate the model of the last round on every split and under every policy.

    Args:
        rounds: The federation after its last round.
        tested: Also on test patients and unseen protocols.
    """
    results = FinalResults()
    number = rounds.manifest.round
    if not tested:
        if not any(files.validation for files in rounds.spec.files):
            return results
        evaluations, rows = rounds.evaluate("validation", number, detail=bool(rounds.spec.metrics))
        rounds.announce(number, "validation", evaluations)
        results.rows += rows
        return results
    for split in ("validation", "test"):
        if any(getattr(files, split) for files in rounds.spec.files):
            evaluations, _ = rounds.evaluate(split, number, detail=True)
            rounds.announce(number, split, evaluations)
            for client, evaluation in evaluations.items():
                results.add(number, rounds.spec.clients[client].id, split, evaluation)
                if split == "test":
                    results.rows += _inspection_rows(rounds, client, evaluation)
    results.rows += _swap_rows(rounds, number)
    if phantoms(rounds.spec):
        results.rows += _phantom_rows(rounds, number)
    if rounds.spec.unseen:
        _evaluate_unseen(rounds, number, results)
        for phantom in phantoms(rounds.spec, unseen=True):
            results.rows += _unseen_phantom_rows(rounds, number, phantom, results)
    return results


def _inspection_rows(rounds: Rounds, client: int, evaluation: ClientEvaluation) -> list[MetricRow]:
    name = rounds.spec.clients[client].id
    return [
        (rounds.manifest.round, name, "modulation", metric, value)
        for metric, value in evaluation.inspection.items()
    ]


def _phantom_rows(rounds: Rounds, number: int) -> list[MetricRow]:
    """What every client's model does to phantoms."""
    clients = [c for c, files in enumerate(rounds.spec.files) if files.test is not None]
    vector, _ = rounds.broadcast(number)
    calls: list[Call] = [
        (rounds.runtime.host_of[turn.client], "seen.phantoms", (vector, turn))
        for turn in rounds.turns(clients)
    ]
    values = rounds.runtime.fetch(rounds.runtime.start(calls))
    return [
        row
        for client, found in zip(clients, values, strict=True)
        for kind, scores in found.items()
        for row in score_rows(number, rounds.spec.clients[client].id, kind, scores)
    ]


def _unseen_phantom_rows(
    rounds: Rounds, number: int, phantom: Phantom, results: FinalResults
) -> list[MetricRow]:
    """What models do to a phantom under unseen protocols, by every policy that runs one model."""
    runtime = rounds.runtime
    vector, _ = rounds.broadcast(number)
    rows: list[MetricRow] = []
    for unseen, info in enumerate(rounds.spec.unseen):
        here = _host_for(rounds, unseen)
        images: dict[str, np.ndarray | None] = {"input": None}
        if not _serves_locally(rounds):
            calls: list[Call] = [(here, "unseen.denoise", (vector, unseen, phantom))]
            (images["shared"],) = runtime.fetch(runtime.start(calls))
        if (route := results.routes.get(info.id)) is not None:
            images["pvqs"] = _serve_by_codebook(rounds, vector, unseen, route, phantom)
        if (nearest := results.nearest.get(info.id)) is not None:
            (turn,) = rounds.turns([nearest])
            asked = (vector, turn, unseen, phantom)
            calls = [(runtime.host_of[nearest], "unseen.denoise_locally", asked)]
            (images["nearest_protocol"],) = runtime.fetch(runtime.start(calls))
        calls = [(here, "unseen.score_phantom", (unseen, phantom, i)) for i in images.values()]
        calls.append((here, "unseen.full_dose", (unseen, phantom)))
        found = runtime.fetch(runtime.start(calls))
        for policy, scores in zip([*images, "full"], found, strict=True):
            rows += score_rows(number, info.id, f"unseen/{policy}/{phantom.kind}", scores)
    return rows


def _swap_rows(rounds: Rounds, number: int) -> list[MetricRow]:
    """PSNR that every client loses when it is given the code least like its own."""
    codes = rounds.runtime.server("codebook")
    clients = [c for c, files in enumerate(rounds.spec.files) if files.test is not None]
    if codes is None or len(codes) < 2 or not clients:
        return []
    unit = codes / np.maximum(np.linalg.norm(codes, axis=1, keepdims=True), 1e-12)
    farthest = np.argmin(unit @ unit.T, axis=1)
    vector, _ = rounds.broadcast(number)
    calls = []
    for turn in rounds.turns(clients):
        host = rounds.runtime.host_of[turn.client]
        own = codes[turn.client]
        for code in (own, codes[farthest[turn.client]]):
            calls.append((host, "seen.evaluate", (vector, turn, "test", code)))
    values = rounds.runtime.fetch(rounds.runtime.start(calls))
    return [
        (
            number,
            rounds.spec.clients[client].id,
            "modulation",
            "swap_psnr_drop",
            float(np.mean(own.scores["psnr"]) - np.mean(other.scores["psnr"])),
        )
        for client, own, other in zip(clients, values[::2], values[1::2], strict=True)
    ]


def _evaluate_unseen(rounds: Rounds, number: int, results: FinalResults) -> None:
    spec, runtime = rounds.spec, rounds.runtime
    vector, _ = rounds.broadcast(number)
    images = _policy_images(rounds, vector, results)
    local = _local_models(rounds, vector) if _serves_locally(rounds) else []
    for unseen, info in enumerate(spec.unseen):
        host = _host_for(rounds, unseen)
        named = {f"unseen/{policy}": denoised for policy, denoised in images[unseen].items()}
        if local:
            named["unseen/ensemble"] = local[unseen][1]
        calls: list[Call] = [
            (host, "unseen.score", (unseen, images, True)) for images in (None, *named.values())
        ]
        evaluations = runtime.fetch(runtime.start(calls))
        for split, evaluation in zip(["unseen/input", *named], evaluations, strict=True):
            results.add(number, info.id, split, evaluation)
        if local:
            for policy, scores in _choose(rounds, unseen, local[unseen][0], results).items():
                evaluation = ClientEvaluation(
                    evaluations[0].patients, evaluations[0].slices, scores, {}, {}
                )
                results.add(number, info.id, f"unseen/{policy}", evaluation)


def _serves_locally(rounds: Rounds) -> bool:
    return bool(rounds.runtime.server("serves_locally"))


def _policy_images(
    rounds: Rounds, vector: Any, results: FinalResults
) -> list[dict[str, np.ndarray]]:
    """Denoised images of each unseen protocol by the policies that run one model."""
    spec, runtime = rounds.spec, rounds.runtime
    if not _serves_locally(rounds):
        calls = [
            (_host_for(rounds, u), "unseen.denoise", (vector, u)) for u in range(len(spec.unseen))
        ]
        return [{"shared": image} for image in runtime.fetch(runtime.start(calls))]
    routes = [runtime.server("route", info.g) for info in spec.unseen]
    images: list[dict[str, np.ndarray]] = []
    for unseen, route in enumerate(routes):
        if route is None:
            images.append({})
            continue
        results.routes[spec.unseen[unseen].id] = route
        images.append({"pvqs": _serve_by_codebook(rounds, vector, unseen, route)})
    return images


def _host_for(rounds: Rounds, unseen: int) -> int:
    """Return the host that stands for an unseen scanner."""
    hosts = rounds.runtime.hosts
    return hosts[unseen % len(hosts)]


def _serve_by_codebook(
    rounds: Rounds, vector: Any, unseen: int, route: Route, phantom: Phantom | None = None
) -> np.ndarray:
    """Send features, batch by batch, to the host that owns the decoder of the nearest code."""
    runtime = rounds.runtime
    here, owner = _host_for(rounds, unseen), runtime.host_of[route.client]
    (turn,) = rounds.turns([route.client])
    batches = []
    count = rounds.spec.unseen[unseen].slices if phantom is None else phantom.images
    for start in range(0, count, EVALUATION_BATCH):
        (features,) = runtime.start(
            [(here, "unseen.features", (vector, unseen, route.code, start, phantom))]
        )
        batches += runtime.fetch(
            runtime.start([(owner, "unseen.decode", (vector, turn, features))])
        )
    return np.concatenate(batches)


def _local_models(rounds: Rounds, vector: Any) -> list[tuple[dict[int, Scores], np.ndarray]]:
    """Per unseen protocol: every client's scores, and the mean of all clients' images."""
    runtime, clients = rounds.runtime, len(rounds.spec.clients)
    hosts = [(h, owned) for h in runtime.hosts if (owned := runtime.clients_of(h))]
    calls = [
        (host, "unseen.serve", (vector, rounds.turns(owned), unseen))
        for unseen in range(len(rounds.spec.unseen))
        for host, owned in hosts
    ]
    answers = runtime.fetch(runtime.start(calls))
    results = []
    for first in range(0, len(answers), len(hosts)):
        scores: dict[int, Scores] = {}
        tree = TreeSum()
        for part, pieces in answers[first : first + len(hosts)]:
            scores |= part
            tree.absorb({n: None if v is None else from_dlpack(v) for n, v in pieces.items()})
        total = tree.total(clients)
        if total is None:
            raise ValueError("no client served")
        results.append((scores, (total / clients).numpy()))
    return results


def _choose(
    rounds: Rounds, unseen: int, scores: Mapping[int, Scores], results: FinalResults
) -> dict[str, Scores]:
    info = rounds.spec.unseen[unseen]
    nearest, _ = nearest_client(info.g, [client.g for client in rounds.spec.clients])
    results.nearest[info.id] = nearest
    means = {client: float(np.mean(found["psnr"])) for client, found in scores.items()}
    best = max(means, key=lambda client: (not math.isnan(means[client]), means[client]))
    mean = {
        name: np.asarray(np.mean([s[name] for _, s in sorted(scores.items())], axis=0))
        for name in scores[best]
    }
    return {"mean_of_scores": mean, "nearest_protocol": scores[nearest], "oracle": scores[best]}
