"""Step 5: denoising at 512 x 512."""

import torch

from gpu_steps.setting import Setting
from physfed_ray.federation.client.training import autocast, build_network

BATCHES = (1, 4, 8, 16, 32)


def run(setting: Setting) -> None:
    """Run the step."""
    size = setting.size(512, 32)
    for precision in ("bf16", "fp32"):
        spec = setting.federation(
            "scan_physfed",
            size=size,
            channels=setting.size(96, 2),
            clients=2,
            slices=2,
            precision=precision,
        )
        network, _, _ = build_network(spec)
        network.eval()
        for count in BATCHES[: setting.size(len(BATCHES), 2)]:
            batch = setting.batch(size, count)

            def denoise(batch=batch, precision=precision, network=network, spec=spec) -> object:  # type: ignore[no-untyped-def]
                with torch.inference_mode(), autocast(setting.device, precision):
                    return spec.method.denoise(network, batch, None)

            seconds = setting.seconds(denoise, setting.size(5, 1))
            setting.record.measured(
                "denoising",
                f"SCAN-PhysFed at {size} x {size}",
                case=f"{precision}, batch {count}",
                slices_per_s=count / seconds,
                milliseconds_a_slice=1000 * seconds / count,
            )
