"""DA-Diff's U-Net: its size, images of any size, what it is told."""

import torch

from physfed_ray.models.da_diff.unet import SINUSOID, Condition, UNet, sinusoid


def test_the_papers_widths_give_the_public_codes_size() -> None:
    with torch.device("meta"):
        network = UNet(64, 4, dose_dim=1024, anatomy_dim=256, anatomy="output")
    count = sum(parameter.numel() for parameter in network.parameters())
    assert round(count / 1e6, 2) == 25.57


def test_time_and_dose_and_anatomy_reach_the_output() -> None:
    torch.manual_seed(1)
    network = UNet(4, 2, dose_dim=6, anatomy_dim=5, anatomy="scan")
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    x, low, a = torch.rand(1, 1, 13, 18), torch.rand(1, 1, 13, 18), torch.tensor([0.5])
    dose, anatomy = torch.rand(1, 6), torch.rand(1, 5)
    own = network(x, low, a, dose, anatomy)
    assert own.shape == x.shape
    others = (
        network(x, low, a / 2, dose, anatomy),
        network(x, low, a, dose.flip(1), anatomy),
        network(x, low, a, dose, anatomy.flip(1)),
        network(low, low, a, dose, anatomy),
    )
    assert all(float((other - own).detach().abs().max()) > 1e-5 for other in others)


def test_the_sinusoid_tells_near_and_far_times_apart() -> None:
    told = sinusoid(torch.tensor([0.0, 0.5, 700.0]))
    assert told.shape == (3, SINUSOID)
    assert told[0].tolist() == [0.0] * (SINUSOID // 2) + [1.0] * (SINUSOID // 2)
    assert float((told[1] - told[0]).norm()) > 0.4
    assert float((told[2] - told[1]).norm()) > 2


def test_the_dose_enters_with_and_without_a_prompt() -> None:
    torch.manual_seed(1)
    a, dose = torch.tensor([0.5, 0.5]), torch.eye(2, 6)
    prompt, direct = (Condition(16, 6, how) for how in ("prompt", "direct"))
    assert prompt.prompt is not None
    assert direct.prompt is None
    changes = [
        float((c(a, dose)[0] - c(a, dose)[1]).detach().abs().max()) for c in (prompt, direct)
    ]
    assert changes[1] > 5 * changes[0] > 0
    constant = Condition(16, None, "direct")(a, None).detach()
    assert torch.equal(constant[0], constant[1])
