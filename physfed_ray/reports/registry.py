"""Reporters and text encoders by the names that experiments use."""

from collections.abc import Mapping

from physfed_ray.reports.base import Reporter, TextEncoder
from physfed_ray.reports.encoder import MiniLM, TextModel
from physfed_ray.reports.measured import MeasuredReporter
from physfed_ray.reports.mllm import MllmReporter
from physfed_ray.reports.mllm_encoder import MllmEncoder

REPORTERS: Mapping[str, type[Reporter]] = {c.name: c for c in (MeasuredReporter, MllmReporter)}
ENCODERS: Mapping[str, type[TextEncoder]] = {c.name: c for c in (MiniLM, TextModel, MllmEncoder)}
