"""The rounds of a federation: broadcast, local training, aggregation, commit."""

import math
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np

from physfed_ray.checksum import checksum
from physfed_ray.errors import DivergedError, PhysFedError, at_work
from physfed_ray.events import Event
from physfed_ray.experiment import Federation
from physfed_ray.federation.channel.base import Channel
from physfed_ray.federation.client.training import learning_rate
from physfed_ray.federation.examples import PICTURED, slices_each
from physfed_ray.federation.orders import ClientEvaluation, ClientTurn, Order
from physfed_ray.federation.record import RoundOutcome, RoundRecord, mean_score, score_rows
from physfed_ray.federation.runtime import ActorLostError, Call, Lost, Runtime
from physfed_ray.federation.schedule import Plan, PlannedTurn, make_schedule
from physfed_ray.federation.spec import Spec
from physfed_ray.methods.base import Method
from physfed_ray.metrics.registry import STANDARD
from physfed_ray.rundir.intact import Intact, newest_intact
from physfed_ray.rundir.long_table import METRICS_FILE, LongTable, MetricRow
from physfed_ray.rundir.run_directory import Manifest, RunDirectory, client_file, round_name

T = TypeVar("T")
RETRIES = 5
"""Times that a round, or a host in it, may be lost before the run stops."""


class Rounds:
    """Drives a runtime through the rounds, from wherever the run directory stands.

    Args:
        spec: The federation.
        settings: Participation, schedule, quorum, deadline, checkpoints.
        runtime: Where the hosts live.
        directory: The run directory, None when nothing is to be written.
        on_event: Receives progress events.
        on_rows: Receives the metrics of each checkpoint, for example TensorBoard.

    Attributes:
        manifest: Where the federation stands: the last round, whether saved or not yet.
        metrics: The metrics of all saved rounds.
    """

    def __init__(
        self,
        spec: Spec,
        settings: Federation,
        runtime: Runtime,
        directory: RunDirectory | None,
        on_event: Callable[[Event], None],
        on_rows: Callable[[Sequence[MetricRow]], None],
    ) -> None:
        self.spec, self._settings, self.runtime = spec, settings, runtime
        self.directory, self._on_event, self._on_rows = directory, on_event, on_rows
        self.metrics = LongTable()
        self._schedule = make_schedule(spec, settings)
        self._difference = self._schedule.stale or spec.channel.differences
        self._losses = 0
        runtime.notice = self._say
        self._stand_at(Manifest(0, {member.id: 0 for member in spec.members}))

    def _stand_at(self, manifest: Manifest) -> None:
        """Forget everything that no checkpoint has."""
        self.manifest = manifest
        self._on_disk = {0, manifest.round, *manifest.bases}
        self._parts = dict(manifest.parts)
        self._vectors: dict[int, tuple[Any, Any]] = {}
        self._unsaved: set[int] = set()
        self._pending: list[MetricRow] = []
        self._sizes: tuple[int, int] | None = None
        self._published = 0, 0

    def _say(self, text: str) -> None:
        self._on_event({"event": "message", "text": text})

    def resume(self) -> None:
        """Go to the newest intact round of the run directory, if a round was completed.

        Raises:
            PhysFedError: Rounds were completed, and none of them is intact.
        """
        found = Intact(None, LongTable())
        if self.directory is not None:
            found = newest_intact(self.directory)
            for text in found.notices:
                self._say(text)
            self.metrics = found.metrics
            if found.mend:
                self.directory.write_table(METRICS_FILE, self.metrics)
        start = Manifest(0, {member.id: 0 for member in self.spec.members})
        self._stand_at(found.manifest or start)
        self.runtime.server("restore", self.manifest.round)

    def run(self) -> None:
        """Run all rounds that are left.

        Raises:
            PhysFedError: If fewer clients than the quorum completed a round, or hosts die faster
                than rounds complete.
        """
        self.surviving(self._run_left)

    def _run_left(self) -> None:
        if self.manifest.round == 0:
            self._publish()
        while self.manifest.round < self.spec.training.rounds:
            self.run_round(self.manifest.round + 1)

    def _publish(self) -> None:
        """Let every client publish what its method wants to be known before the first round."""
        calls: list[Call] = [
            (host, "publish", (clients,))
            for host in self.runtime.hosts
            if (clients := self.runtime.clients_of(host))
        ]
        if type(self.spec.method).publish is Method.publish:
            return
        answers = self.runtime.fetch(self.runtime.start(calls))
        by_client = {
            client: published
            for (_, _, (clients,)), answer in zip(calls, answers, strict=True)
            for client, published in zip(clients, answer, strict=True)
        }
        published = [by_client[client] for client in sorted(by_client)]
        up = sum(array.nbytes for arrays in published for array in arrays.values())
        self._published = up, len(published) * self.runtime.server("collect", published)

    def surviving(self, step: Callable[[], T]) -> T:
        """Do a step; when something dies in it, go back to the last checkpoint and do it again."""
        lost: ActorLostError | None = None
        while True:
            try:
                if lost is not None:
                    self._recover(lost)
                return step()
            except ActorLostError as error:
                lost = error

    def _recover(self, lost: ActorLostError) -> None:
        self._losses += 1
        if self.directory is None or self._losses > RETRIES:
            raise PhysFedError(
                f"{lost}, {self._losses} times since the last completed round: look into its "
                "cause (memory, disk, a machine that goes away), and run again with --resume"
            ) from lost
        self.runtime.repair()
        self.resume()
        self._say(f"{lost}; replaced, going on after round {self.manifest.round}")

    def run_round(self, number: int) -> None:
        """Run one round, and commit it where a checkpoint is due."""
        began = time.monotonic()
        plan = self._schedule.plan(number)
        self._forget({*plan.bases, *(turn.base for turn in plan.all_turns)})
        if self.manifest.round in plan.bases:
            self.broadcast(self.manifest.round)  # while the server still has it
        outcome = self._train(number, plan)
        self._check_quorum(number, plan, outcome)
        sizes = self._sizes or self.runtime.server("sizes")
        if outcome.results:
            self._sizes = self._aggregate(number, outcome)
        seconds = time.monotonic() - began
        results = outcome.all_results
        kept = {c for c, result in results.items() if result.kept}
        touched = {self.spec.members[c].id: number for c in kept}
        private = self.manifest.private_rounds | touched
        self.manifest = Manifest(number, private, tuple(sorted(plan.bases)))
        self._parts |= {self._file(number, c): results[c].part for c in kept}
        self._forget(plan.bases)
        published = self._published if number == 1 else (0, 0)
        account = self._account() if outcome.results else {}
        record = RoundRecord(self.spec, number, plan, outcome, seconds, sizes, published, account)
        self._pending += record.rows()
        self._on_event(record.event())
        if number % self.spec.training.evaluate_every == 0:
            self._pending += self._curve_rows(number)
        self._unsaved |= kept
        if self._saves(number):
            self._commit(saved=kept)

    def _forget(self, needed: Collection[int]) -> None:
        """Let go of the vectors of all rounds but some."""
        self._vectors = {base: v for base, v in self._vectors.items() if base in needed}

    def _saves(self, number: int) -> bool:
        return number % self._settings.checkpoint_every == 0 or number == self.spec.training.rounds

    def finish(self, rows: Sequence[MetricRow]) -> None:
        """Write the rows of the last evaluation."""
        self.metrics.replace(rows)
        if self.directory is not None:
            self.directory.write_table(METRICS_FILE, self.metrics)

    def turns(self, members: Sequence[int]) -> list[ClientTurn]:
        """Return members' turns, with the private state of the last completed round."""
        return [self._turn(member, self._private_round(member)) for member in members]

    def _private_round(self, member: int) -> int:
        """Return the round of a member's private state; 0 where its run began without it."""
        return self.manifest.private_rounds.get(self.spec.members[member].id, 0)

    def _turn(self, client: int, number: int) -> ClientTurn:
        return ClientTurn(client, number, part=self._parts.get(self._file(number, client)) or None)

    def _file(self, number: int, client: int) -> str:
        return client_file(number, self.spec.members[client].id)

    def evaluate(
        self, split: str, number: int, *, detail: bool = False
    ) -> tuple[dict[int, ClientEvaluation], list[MetricRow]]:
        """Evaluate every client that has images of a split, on its own host."""
        clients = [
            c for c, files in enumerate(self.spec.files) if getattr(files, split) is not None
        ]
        vector, _ = self.broadcast(self.manifest.round)
        places = np.linspace(0, len(clients) - 1, PICTURED if clients else 0).round().astype(int)
        pictured = {clients[i] for i in places}
        each = slices_each(len(pictured), len(self.spec.unseen)) if split == "test" else 1
        calls = [
            (
                self.runtime.host_of[turn.client],
                "seen.evaluate",
                (vector, turn, split, None, detail, each * (detail and turn.client in pictured)),
            )
            for turn in self.turns(clients)
        ]
        with at_work(f"after round {number}"):
            answers = self.runtime.fetch(self.runtime.start(calls))
        evaluations = dict(zip(clients, answers, strict=True))
        rows: list[MetricRow] = []
        for client, evaluation in evaluations.items():
            rows += score_rows(number, self.spec.clients[client].id, split, evaluation.scores)
        return evaluations, rows

    def announce(
        self, number: int, split: str, evaluations: Mapping[int, ClientEvaluation]
    ) -> None:
        """Send an evaluation's mean scores as an event."""
        scores = {
            self.spec.clients[client].id: {
                name: mean_score(evaluation.scores[name]) for name in STANDARD
            }
            for client, evaluation in evaluations.items()
        }
        self._on_event({"event": "evaluation", "round": number, "split": split, "scores": scores})

    def broadcast(self, base: int) -> tuple[Any, Any]:
        """Return handles on the shared vector after a round and on what goes with it."""
        if base not in self._vectors:
            now = base == self.manifest.round
            self._vectors[base] = self.runtime.publish() if now else self.runtime.recall(base)
        return self._vectors[base]

    def _train(self, number: int, plan: Plan) -> RoundOutcome:
        outcome = RoundOutcome(dict(plan.missing))
        waiting = {
            turn.client: replace(turn, base=planned.base, factor=self._factor(number, planned))
            for turn, planned in zip(
                self.turns([p.client for p in plan.all_turns]), plan.all_turns, strict=True
            )
        }
        asked = tuple(sorted(turn.client for turn in plan.turns))
        for attempt in range(1 + RETRIES):
            orders = self._orders(number, waiting, outcome, asked)
            for host, answer in self.runtime.train(orders, self._settings.deadline_s).items():
                order = orders[host][0]
                if not isinstance(answer, Lost):
                    self._sort_results(order, answer, host, outcome)
                elif self._replaced(host, answer, number, attempt):
                    continue
                else:
                    outcome.missing.update({turn.client: answer.reason for turn in order.turns})
            waiting = {c: turn for c, turn in waiting.items() if not outcome.has_heard_of(c)}
            if not waiting:
                break
        return outcome

    def _factor(self, number: int, planned: PlannedTurn) -> float:
        return self._schedule.factor(number, planned) if self._schedule.stale else 1.0

    def _orders(
        self,
        number: int,
        waiting: Mapping[int, ClientTurn],
        outcome: RoundOutcome,
        asked: tuple[int, ...],
    ) -> dict[int, tuple[Order, list[Any]]]:
        """Return what each host that has clients waiting is to do, and with which vectors."""
        orders = {}
        for host in self.runtime.hosts:
            clients = [c for c in self.runtime.assignment[host] if c not in outcome.covered]
            turns = tuple(waiting[c] for c in clients if c in waiting)
            if not turns:
                continue
            bases = tuple(sorted({turn.base for turn in turns}))
            order = Order(
                round=number,
                learning_rate=learning_rate(self.spec.training, number),
                clients=tuple(clients),
                turns=turns,
                bases=bases,
                difference=self._difference,
                save=self._saves(number),
                deadline_s=self._settings.deadline_s,
                participants=asked,
            )
            orders[host] = order, [part for base in bases for part in self.broadcast(base)]
        return orders

    def _replaced(self, host: int, lost: Lost, number: int, attempt: int) -> bool:
        """Replace a host; say whether its clients train again in this round.

        Raises:
            ActorLostError: Private states were lost with it that only an earlier checkpoint has.
        """
        clients = self.runtime.assignment[host]
        stateful = any(self._private_round(c) for c in clients)
        if self._unsaved & set(clients) or (self.directory is None and stateful):
            if not lost.dead:
                self.runtime.restart(host)  # alive, it would be taken for sound, and stay busy
            raise ActorLostError(lost.reason)
        self.runtime.restart(host)
        again = lost.dead and attempt < RETRIES
        if again:
            self._say(f"round {number}: {lost.reason}; replaced, its clients train again")
        return again

    def _sort_results(
        self, order: Order, answer: tuple[Any, Any], host: int, outcome: RoundOutcome
    ) -> None:
        results, pieces = answer
        outcome.pieces.append((host, pieces))
        outcome.covered.update(order.clients)
        for turn, result in zip(order.turns, results, strict=True):
            of_client = self.spec.is_client(turn.client)
            if result.missing:
                outcome.missing[turn.client] = result.missing
                outcome.diverged |= result.diverged and of_client
            else:
                (outcome.results if of_client else outcome.server)[turn.client] = result

    def _check_quorum(self, number: int, plan: Plan, outcome: RoundOutcome) -> None:
        excused = plan.missing if self._settings.schedule == "async" else {}  # too stale, replaced
        drawn = len(plan.turns) + len(plan.missing) - len(excused)
        if not drawn:
            why = "no late update arrives yet" if plan.bases else "no client can be reached"
            kept = "nothing" if plan.server is None else "nothing that is shared"
            self._say(f"round {number}: {why}; {kept} is changed")
            return
        needed = max(1, math.ceil(self._settings.quorum * drawn - 1e-9))
        if len(outcome.results) >= needed:
            return
        reasons = [f"{self.spec.members[c].id}: {r}" for c, r in outcome.missing.items()]
        more = f"; and {len(reasons) - 4} more" if len(reasons) > 4 else ""
        kind = DivergedError if outcome.diverged else PhysFedError
        raise kind(
            f"round {number} has {len(outcome.results)} of {drawn} clients, fewer than the "
            f"quorum of {needed} ({'; '.join(reasons[:4])}{more}); nothing of it was kept: mend "
            "the cause and run again with --resume, or lower federation.quorum"
        )

    def _aggregate(self, number: int, outcome: RoundOutcome) -> tuple[int, int]:
        members = self.spec.members
        absent = [m.index for m in members if m.index not in outcome.covered]
        uploads = {members[m].id: r.uploads for m, r in sorted(outcome.all_results.items())}
        sizes: tuple[int, int] = self.runtime.server(
            "aggregate",
            number,
            sorted(outcome.results),
            uploads,
            absent,
            self._difference,
            *self.runtime.combine(outcome.pieces),
        )
        return sizes

    def _account(self) -> dict[str, float]:
        """Return what the channel says of the round that has just been aggregated."""
        if type(self.spec.channel).account is Channel.account:
            return {}
        account: dict[str, float] = self.runtime.server("account")
        return account

    def _curve_rows(self, number: int) -> list[MetricRow]:
        split = "validation" if any(f.validation for f in self.spec.files) else "test"
        if not any(getattr(files, split) for files in self.spec.files):
            return []
        evaluations, rows = self.evaluate(split, number)
        if number < self.spec.training.rounds:  # the last evaluation follows with all splits
            self.announce(number, split, evaluations)
        for client, evaluation in evaluations.items():
            name = self.spec.clients[client].id
            rows += [
                (number, name, "modulation", metric, value)
                for metric, value in evaluation.inspection.items()
            ]
        apart = self.runtime.server("inspect_codes")
        return rows + [(number, "server", "modulation", n, value) for n, value in apart.items()]

    def _commit(self, saved: set[int]) -> None:
        """Make everything since the last checkpoint visible under one manifest.

        Args:
            saved: Clients whose hosts have written their private state already.
        """
        number, rows = self.manifest.round, self._pending
        if self.directory is not None:
            left = self._unsaved - saved
            calls = [
                (host, "save", (sorted(left & set(self.runtime.assignment[host])),))
                for host in self.runtime.hosts
                if left & set(self.runtime.assignment[host])
            ]
            parts: list[dict[str, str]] = self.runtime.fetch(self.runtime.start(calls))
            parts.append(self.runtime.server("save", number))
            for base in set(self.manifest.bases) - self._on_disk:
                parts.append(self.runtime.server("save_base", base, *self._vectors[base]))
            self._on_disk = {0, number, *self.manifest.bases}
            self.metrics.add(rows)
            parts.append(self._write_metrics(self.directory, number))
            self._keep_parts(parts)
            self.directory.commit(self.manifest)
            # Of a single one nothing would be left if it were damaged.
            self.directory.prune(self.manifest, max(2, self._settings.keep_checkpoints))
        else:
            self.metrics.add(rows)
        self._pending, self._losses = [], 0
        self._unsaved.clear()
        self._on_rows(rows)

    def _write_metrics(self, directory: RunDirectory, number: int) -> dict[str, str]:
        """Write the metrics as a part of the checkpoint, and for readers; return the checksum."""
        name, content = f"{round_name(number)}/{METRICS_FILE}", self.metrics.to_parquet()
        directory.write(name, content)
        directory.write(METRICS_FILE, content)
        return {name: checksum(content)}

    def _keep_parts(self, parts: Sequence[Mapping[str, str]]) -> None:
        """Enter the checksums of all that the round needs into its manifest."""
        for part in parts:
            self._parts |= part
        needed = self.manifest.files()
        self._parts = {n: c for n, c in sorted(self._parts.items()) if c and n in needed}
        self.manifest = replace(self.manifest, parts=self._parts)
