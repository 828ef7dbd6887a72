"""Step 6: the inner loop of the reporter pool, by a multimodal model of random weights."""

import importlib.util
import time

from gpu_steps.setting import Setting, random_data
from physfed_ray.reports.mllm import MllmReporter
from physfed_ray.window import denormalise

NEEDS = ("transformers", "tokenizers", "PIL", "jinja2")


def missing() -> str:
    """Say which packages the step needs and does not find; empty if all are there."""
    absent = [name for name in NEEDS if importlib.util.find_spec(name) is None]
    return f"without {', '.join(absent)} there is no multimodal model" if absent else ""


def run(setting: Setting) -> None:
    """Run the step."""
    from tests.reports.tiny_models import make_tiny_llava  # transformers: only in this step

    folder = setting.out.absolute() / "mllm"
    width, layers = setting.size(1024, 32), setting.size(16, 1)
    if not (folder / "config.json").exists():
        make_tiny_llava(folder, width=width, layers=layers)
    tokens = setting.size(100, 4)
    options = {"model": str(folder), "max_new_tokens": tokens, "dtype": "bf16"}
    reporter = MllmReporter(MllmReporter.Settings.model_validate(options))
    for count in (1, 16, 64)[: setting.size(3, 1)]:
        hu = denormalise(random_data(setting.size(256, 32), count).low, (-1000.0, 2000.0))
        reporter.report(hu[:1])
        setting.wait()
        began = time.perf_counter()
        reporter.report(hu)
        seconds = time.perf_counter() - began
        setting.record.measured(
            "reporter",
            f"LLaVA of random weights, width {width}, {layers} layers, {tokens} tokens, bf16",
            case=f"batch {count}",
            slices_per_s=count / seconds,
        )
