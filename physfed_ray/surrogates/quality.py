"""The quality network (IQEM of FESF): it makes surrogates look like hosts.

A generator G is trained against a discriminator of the host domain; what it makes is mixed with the
patient a second time, which brings back the amplitudes that G has changed. The abstract says no
more: the networks, the hinge losses and the absolute difference that holds G to its input are this
project's.
"""

import torch
from torch import Tensor

from physfed_ray.seeds import derive_seed
from physfed_ray.surrogates.batches import batches, in_parts
from physfed_ray.surrogates.file import Quality
from physfed_ray.surrogates.mixing import mix
from physfed_ray.surrogates.networks import Discriminator, UNet

BETAS = (0.5, 0.9)
"""Of Adam, as is usual with a discriminator."""


def train_quality(surrogates: Tensor, hosts: Tensor, settings: Quality, seed: int) -> UNet:
    """Return a generator, trained.

    Args:
        surrogates: What the training clients published, (N, 1, n, n) float32.
        hosts: Images of the host domain, (M, 1, n, n) float32.
        settings: How long and how wide.
        seed: Of weights and batches.
    """
    torch.manual_seed(derive_seed(seed, "quality", "weights"))
    generator, judge = UNet(settings.width, residual=True), Discriminator(settings.width)
    optimisers = [
        torch.optim.Adam(network.parameters(), settings.lr, BETAS) for network in (generator, judge)
    ]
    endless = settings.steps  # more epochs than there are steps
    fakes = batches(len(surrogates), settings.batch_size, endless, derive_seed(seed, "fakes"))
    reals = batches(len(hosts), settings.batch_size, endless, derive_seed(seed, "reals"))
    for _, fake, real in zip(range(settings.steps), fakes, reals, strict=False):
        images = surrogates[fake]
        made = generator(images)
        judged = judge(hosts[real]), judge(made.detach())
        loss = torch.relu(1 - judged[0]).mean() + torch.relu(1 + judged[1]).mean()
        _step(optimisers[1], loss)
        kept = (made - images).abs().mean()
        _step(optimisers[0], settings.keep * kept - judge(made).mean())
    return generator.eval()


def _step(optimiser: torch.optim.Optimizer, loss: Tensor) -> None:
    optimiser.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    optimiser.step()


def enhance(
    generator: UNet, surrogates: Tensor, patients: Tensor, alpha: float, beta: float
) -> Tensor:
    """Return what the generator makes of surrogates, mixed with the patients once more.

    Args:
        generator: As trained.
        surrogates: (N, 1, n, n) float32.
        patients: Whom they carry, same shape.
        alpha: As in ``mix``.
        beta: As in ``mix``.
    """
    return mix(in_parts(generator, surrogates), patients, alpha, beta)
