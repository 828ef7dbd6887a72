"""Reporters and text encoders by the names that experiments use.

Nothing here imports torch: a reporter's file is read when its name is first asked for.
"""

from typing import TYPE_CHECKING

from physfed_ray.registry import Registry

if TYPE_CHECKING:
    from physfed_ray.reports.base import Reporter, TextEncoder

REPORTERS: "Registry[type[Reporter]]" = Registry(
    "reporter",
    {
        "measured": "physfed_ray.reports.measured:MeasuredReporter",
        "mllm": "physfed_ray.reports.mllm:MllmReporter",
    },
)
ENCODERS: "Registry[type[TextEncoder]]" = Registry(
    "encoder",
    {
        "minilm": "physfed_ray.reports.encoder:MiniLM",
        "text": "physfed_ray.reports.encoder:TextModel",
        "mllm": "physfed_ray.reports.mllm_encoder:MllmEncoder",
        "hashed": "physfed_ray.reports.hashed:HashedWords",
    },
)
