"""HU to HU as one module, and as a graph for images of any size."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from physfed_ray.errors import PhysFedError
from physfed_ray.methods.registry import METHODS
from physfed_ray.models.registry import BACKBONES
from physfed_ray.serving.choice import Choice
from physfed_ray.serving.denoiser import Denoiser
from physfed_ray.serving.export.graph import (
    CHECKED,
    HuToHu,
    example_inputs,
    largest_difference,
    make_graph,
)
from physfed_ray.serving.export.onnx_file import onnx_runner, write_onnx
from tests.serving.export.conftest import SIZE

Tiny = Callable[..., Denoiser]
PVQS = Choice(
    "pvqs", "paper-2", np.full(7, 0.3, np.float32), 0.9, code=np.linspace(-1, 1, 128, dtype="f4")
)


def reads(module: HuToHu, inputs: tuple[torch.Tensor, ...]) -> dict[str, np.ndarray]:
    """Return what is given beside the images, by the denoiser's names."""
    names = [wanted.name for wanted in module.inputs[1:]]
    return {name: array.numpy() for name, array in zip(names, inputs[1:], strict=True)}


@pytest.mark.parametrize("method", METHODS)
def test_the_module_does_what_the_denoiser_does(method: str, tiny: Tiny) -> None:
    denoiser = tiny(method)
    module = HuToHu(denoiser)
    inputs = example_inputs(module, (9, SIZE, SIZE))  # more than a batch of the denoiser
    expected = denoiser(inputs[0].numpy(), **reads(module, inputs))
    found = module(*inputs).numpy()
    np.testing.assert_allclose(found, expected, atol=0.01)  # HU: 3e-6 of the window
    assert np.abs(found - inputs[0].numpy()).mean() > 1
    outside = (inputs[0] < -1000) | (inputs[0] > 2000)
    assert outside.any()
    assert torch.equal(torch.from_numpy(found)[outside], inputs[0][outside])


def test_a_code_of_the_codebook_is_a_constant_of_the_module(tiny: Tiny) -> None:
    denoiser = tiny("scan_physfed", choice=PVQS)
    module = HuToHu(denoiser)
    inputs = example_inputs(module, (2, SIZE, SIZE))
    expected = denoiser(inputs[0].numpy(), **reads(module, inputs))
    np.testing.assert_allclose(module(*inputs).numpy(), expected, atol=0.01)
    own = HuToHu(tiny("scan_physfed"))
    assert (own(*inputs) - module(*inputs)).abs().max() > 0.1


def test_an_anatomy_map_lies_over_images_that_are_not_square_as_over_square_ones(
    tiny: Tiny,
) -> None:
    module = HuToHu(tiny("scan_physfed"))
    hu, *report = example_inputs(module, (1, 60, 60))
    upright = module(hu[:, :, :44], *report)
    assert upright.shape == (1, 60, 44)
    assert (module(hu[:, :44, :], *report)[:, :24, :24] - upright[:, :24, :24]).abs().max() > 1e-3


def test_a_graph_equals_its_module_at_other_sizes(tiny: Tiny) -> None:
    module = HuToHu(tiny("hyperfed"))
    program = make_graph(module).module()
    assert largest_difference(module, program) < 1e-6

    def frozen(*inputs: torch.Tensor) -> torch.Tensor:
        return program(*inputs) + 1

    with pytest.raises(PhysFedError, match=r"differs from the network by 0\.00033 of the window"):
        largest_difference(module, frozen)


def test_a_graph_that_fails_at_a_size_is_refused(tiny: Tiny) -> None:
    def fails(*inputs: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("bad\nsize")

    with pytest.raises(PhysFedError, match=r"fails for .* \(1, 64, 64\) \(RuntimeError: bad size"):
        largest_difference(HuToHu(tiny("fedavg")), fails)


@pytest.mark.parametrize(
    ("method", "backbone", "said"),
    [
        ("fedfdd", "red_cnn", "FedFDD cannot be exported .* drawn at random for each size"),
        ("fedavg", "uformer", "Uformer cannot be exported .* follows from the size of the image"),
    ],
)
def test_what_has_no_graph_says_so(method: str, backbone: str, said: str, tiny: Tiny) -> None:
    with pytest.raises(PhysFedError, match=said) as refusal:
        make_graph(HuToHu(tiny(method, backbone)))
    assert "use --format safetensors" in str(refusal.value)


def test_a_network_that_an_exporter_cannot_follow_is_refused_in_a_sentence(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    denoiser = tiny("fedavg")
    decode = denoiser.method.decode

    def branching(network: torch.nn.Module, features: tuple[torch.Tensor, ...]) -> torch.Tensor:
        image = decode(network, features)
        return image if float(image.detach().mean()) > 0 else -image

    monkeypatch.setattr(denoiser.method, "decode", branching)
    with pytest.raises(PhysFedError, match=r"FedAvg with red_cnn .* cannot be") as refusal:
        make_graph(HuToHu(denoiser))
    assert "\n" not in str(refusal.value)


@pytest.mark.cluster  # 4 s of CPU each: what ONNX makes of each method's own operations
@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("method", METHODS)
def test_onnx_equals_torch_for_every_method_or_is_refused(
    method: str, backbone: str, tiny: Tiny, tmp_path_factory: pytest.TempPathFactory
) -> None:
    if METHODS[method].refuses(tiny("fedavg", backbone).method.task.backbone):
        pytest.skip("the method refuses the backbone")
    module = HuToHu(tiny(method, backbone))
    if METHODS[method].no_graph or BACKBONES[backbone].no_graph:
        with pytest.raises(PhysFedError, match="cannot be exported"):
            make_graph(module)
        return
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    write_onnx(make_graph(module), module.inputs, path)
    run = onnx_runner(path)
    assert run is not None
    assert largest_difference(module, run) < 1e-5
    assert len({shape[0] for shape in CHECKED}) == len(CHECKED)
