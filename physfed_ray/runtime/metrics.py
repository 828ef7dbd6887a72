"""What a running federation shows in Ray's dashboard, Prometheus and Grafana.

Ray's agent on every node exports each metric with ``ray_`` before its name, a counter with
``_total`` behind it, at most as often as ``metrics_report_interval_ms`` says (10 s). Each label
value is a series of its own for ever, so a run has series a client only while it is small
(``NAMED_CLIENTS``); the mean, minimum and maximum over the clients are always there.
"""

import math
from collections.abc import Mapping
from typing import Any

from ray.util.metrics import Counter, Gauge, Histogram

from physfed_ray.federation.training import ClientResult

NAMED_CLIENTS = 64
OTHERS = "others"
SECONDS = [0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0]

GAUGES: dict[str, tuple[str, tuple[str, ...]]] = {
    "physfed_round": ("Last completed round.", ()),
    "physfed_rounds_planned": ("Rounds that the run is to have.", ()),
    "physfed_eta_seconds": ("Expected time until the last round is complete.", ()),
    "physfed_clients": ("Clients of the federation.", ()),
    "physfed_hosts": ("Hosts that they live on.", ()),
    "physfed_participants": ("Clients that completed the last round.", ()),
    "physfed_missing": ("Clients that were sampled for the last round and are missing.", ()),
    "physfed_round_seconds": ("Duration of the last round without its evaluation.", ()),
    "physfed_slices_per_second": ("Training slices in a second of the last round.", ()),
    "physfed_bytes_up": ("Bytes that clients sent in the last round.", ()),
    "physfed_bytes_down": ("Bytes that clients received in the last round.", ()),
    "physfed_scans_done": ("Scans simulated or found in the cache.", ()),
    "physfed_scans_planned": ("Scans that the run needs.", ()),
    "physfed_loss": ("Mean training loss of a client in its last round.", ("client",)),
    "physfed_loss_summary": ("Training loss over the participants.", ("statistic",)),
    "physfed_psnr": ("Mean PSNR of a client's images, dB.", ("client", "split")),
    "physfed_psnr_summary": ("PSNR over the clients, dB.", ("statistic", "split")),
    "physfed_ssim": ("Mean SSIM of a client's images.", ("client", "split")),
    "physfed_ssim_summary": ("SSIM over the clients.", ("statistic", "split")),
}


class RunMetrics:
    """Turns the progress events of a run into metrics, in the driver.

    Args:
        run: Name of the run, the label ``run`` of every metric.
    """

    def __init__(self, run: str) -> None:
        self._gauges = {
            name: Gauge(name, text, ("run", *labels)).set_default_tags({"run": run})
            for name, (text, labels) in GAUGES.items()
        }
        self._clients = 0

    def __call__(self, event: Mapping[str, Any]) -> None:
        """Take up an event; kinds that carry no numbers are ignored."""
        match event["event"]:
            case "prepare":
                self._set(scans_done=event["done"], scans_planned=event["total"])
            case "start":
                self._start(event)
            case "round":
                self._round(event)
            case "evaluation":
                for name in ("psnr", "ssim"):
                    values = {client: s[name] for client, s in event["scores"].items()}
                    self._spread(name, values, {"split": event["split"]})

    def _start(self, event: Mapping[str, Any]) -> None:
        self._clients = len(event["clients"])
        self._set(
            clients=self._clients,
            hosts=event["hosts"],
            round=event["from_round"],
            rounds_planned=event["rounds"],
        )

    def _round(self, event: Mapping[str, Any]) -> None:
        self._set(
            round=event["round"],
            rounds_planned=event["rounds"],
            eta_seconds=event["eta_s"],
            participants=event["participants"],
            missing=len(event["missing"]),
            round_seconds=event["seconds"],
            slices_per_second=event["slices_per_s"],
            bytes_up=event["bytes_up"],
            bytes_down=event["bytes_down"],
        )
        self._spread("loss", event["loss"], {})

    def _set(self, **values: float) -> None:
        for name, value in values.items():
            self._gauges[f"physfed_{name}"].set(value)

    def _spread(self, name: str, values: Mapping[str, float], tags: dict[str, str]) -> None:
        """Set a metric's summary over the clients, and each client's where they are few."""
        finite = {client: float(v) for client, v in values.items() if math.isfinite(v)}
        if not finite:
            return
        numbers = finite.values()
        summary = {
            "mean": math.fsum(numbers) / len(finite),
            "min": min(numbers),
            "max": max(numbers),
        }
        for statistic, value in summary.items():
            self._gauges[f"physfed_{name}_summary"].set(value, tags | {"statistic": statistic})
        if max(self._clients, len(finite)) <= NAMED_CLIENTS:
            for client, value in finite.items():
                self._gauges[f"physfed_{name}"].set(value, tags | {"client": client})


class HostMetrics:
    """Shows what a host is at, from inside its process.

    A host names its first ``NAMED_CLIENTS`` clients; further ones share the name ``others``.

    Args:
        run: Name of the run.
        host: Name of the host.
    """

    def __init__(self, run: str, host: str) -> None:
        tags, keys = {"run": run, "host": host}, ("run", "host")
        self._waiting = Gauge(
            "physfed_clients_waiting", "Clients that wait for their turn on a host.", keys
        ).set_default_tags(tags)
        self._training = Gauge(
            "physfed_training", "1 while a client trains, 0 after it.", (*keys, "client")
        ).set_default_tags(tags)
        self._done = Counter(
            "physfed_clients_done", "Client rounds completed.", keys
        ).set_default_tags(tags)
        self._seconds = Histogram(
            "physfed_client_seconds", "Duration of a client's round.", SECONDS, keys
        ).set_default_tags(tags)
        self._named: set[str] = set()

    def begin(self, client_id: str, waiting: int) -> None:
        """Note that a client begins to train.

        Args:
            client_id: Id of the client.
            waiting: Clients of this host whose turn is still to come in this round.
        """
        self._waiting.set(waiting)
        self._training.set(1, {"client": self._label(client_id)})

    def done(self, result: ClientResult) -> None:
        """Note that a client ended its round; one that is missing does not count as done."""
        self._training.set(0, {"client": self._label(result.client)})
        if not result.missing:
            self._done.inc()
            self._seconds.observe(result.seconds)

    def _label(self, client_id: str) -> str:
        if len(self._named) < NAMED_CLIENTS:
            self._named.add(client_id)
        return client_id if client_id in self._named else OTHERS
