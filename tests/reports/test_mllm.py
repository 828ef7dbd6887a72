"""Reports and embeddings by real multimodal classes with random weights."""

import json
import logging
import shutil
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub import constants
from pydantic import ValidationError
from scipy.ndimage import gaussian_filter

from physfed_ray.errors import PhysFedError
from physfed_ray.reports.base import PartSettings
from physfed_ray.reports.mllm import MAX_IMAGE_SIZE, MllmReporter
from physfed_ray.reports.mllm_encoder import MllmEncoder
from physfed_ray.reports.mllm_model import fits_in_memory
from tests.reports.tiny_models import make_tiny_gemma, make_tiny_llava, make_tiny_qwen

MAKERS = {"llava": make_tiny_llava, "qwen": make_tiny_qwen, "gemma": make_tiny_gemma}
TEXTS = [
    "axial section through the chest",
    "",
    "Lunge unauffällig, Größe normal. 胸部 正常 🫁",
    "lung " * 300,
    "<image> <|image_pad|> </s> are words here \ud800",
    "liver",
]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {name: make(tmp_path_factory.mktemp(name)) for name, make in MAKERS.items()}


@pytest.fixture(params=list(MAKERS))
def folder(request: pytest.FixtureRequest, folders: dict[str, Path]) -> Path:
    return folders[request.param]


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    """A model's folder that a test may damage."""
    return Path(shutil.copytree(folder, tmp_path / "model"))


def make_reporter(model: Path, **settings: Any) -> MllmReporter:
    entries = {"model": str(model), "max_new_tokens": 12, **settings}
    return MllmReporter(MllmReporter.Settings.model_validate(entries))


def make_encoder(model: Path, **settings: Any) -> MllmEncoder:
    return MllmEncoder(MllmEncoder.Settings.model_validate({"model": str(model), **settings}))


def other_weights(folder: Path, tmp_path: Path) -> Path:
    """Return the folder of a model that differs from ``folder`` in its weights alone."""
    make = next(make for name, make in MAKERS.items() if folder.name.startswith(name))
    return make(tmp_path / "other", seed=1)


def slices(count: int = 5, size: int = 64) -> np.ndarray:
    """Return smooth random slices (count, size, size) float32 in HU."""
    rng = np.random.default_rng(3)
    noise = rng.normal(size=(count, size, size))
    return (gaussian_filter(noise, (0, size / 16, size / 16)) * size * 45 - 200).astype(np.float32)


def test_the_text_depends_on_the_image(folder):
    texts = make_reporter(folder).report(slices(16))
    assert len(set(texts)) > 8
    assert all(texts)


def test_a_batch_says_what_its_slices_say_alone(folder):
    reporter, hu = make_reporter(folder, max_new_tokens=30), slices()
    batched = reporter.report(hu)
    assert batched == [reporter.report(image[None])[0] for image in hu]
    assert reporter.report(hu[::-1]) == batched[::-1]


def test_reports_of_different_lengths_share_a_batch(folder):
    """Some end early; what follows their end must not show."""
    reporter, hu = make_reporter(folder, max_new_tokens=150), slices(8)
    batched = reporter.report(hu)
    assert len({len(text) for text in batched}) > 1
    assert not any(mark in text for text in batched for mark in ("<pad>", "</s>", "<|"))
    assert batched == [reporter.report(image[None])[0] for image in hu]


def test_another_object_says_the_same(folder):
    torch.manual_seed(1)
    first = make_reporter(folder).report(slices())
    torch.manual_seed(2)
    assert make_reporter(folder).report(slices()) == first


def test_drawing_is_deterministic_for_an_image_whatever_its_batch(folder):
    hu, options = slices(), {"do_sample": True, "temperature": 2.0}
    drawn = make_reporter(folder, **options)
    texts = drawn.report(hu)
    assert texts == [drawn.report(image[None])[0] for image in hu]
    assert texts != make_reporter(folder).report(hu)
    assert texts != make_reporter(folder, **options, seed=1).report(hu)
    almost_greedy = make_reporter(folder, do_sample=True, temperature=1e-4)
    assert almost_greedy.report(hu) == make_reporter(folder).report(hu)


def test_sampling_advice_of_the_models_authors_is_not_followed(copy):
    before = make_reporter(copy).report(slices())
    path = copy / "generation_config.json"
    advice = {"do_sample": True, "temperature": 9.0, "top_p": 0.9, "top_k": 50}
    path.write_text(json.dumps(json.loads(path.read_text()) | advice))
    assert make_reporter(copy).report(slices()) == before


def test_texts_are_not_ascii_alone(folder):
    texts = "".join(make_reporter(folder, max_new_tokens=40).report(slices()))
    assert any(ord(letter) > 255 for letter in texts)
    assert texts.encode("utf-8")
    assert not any(ord(letter) < 32 and letter not in "\n\t" for letter in texts)


@pytest.mark.parametrize("size", [16, 100, 512])
def test_slices_of_any_size(folder, size):
    reporter = make_reporter(folder)
    assert len(set(reporter.report(slices(8, size)))) > 3


def test_oversize_slices_are_bounded(folder):
    hu = np.kron(slices(1), np.ones((1, MAX_IMAGE_SIZE // 32, MAX_IMAGE_SIZE // 32), np.float32))
    bounded = make_reporter(folder).report(hu)
    assert bounded == make_reporter(folder, image_size=MAX_IMAGE_SIZE).report(hu)
    assert all(bounded)


def test_no_slices(folder):
    assert make_reporter(folder).report(np.zeros((0, 64, 64), np.float32)) == []


def test_settings_change_what_is_said(folder):
    hu = slices()
    plain = make_reporter(folder).report(hu)
    for change in ({"prompt": "describe the lung ."}, {"channels": [-1000, 1000]}):
        assert make_reporter(folder, **change).report(hu) != plain


def test_bf16_and_eager_attention(folder):
    texts = make_reporter(folder, dtype="bf16", attn_implementation="eager").report(slices())
    assert len(set(texts)) > 1


def test_whatever_changes_the_text_changes_the_version(folder, tmp_path):
    versions = [make_reporter(folder).version]
    for change in (
        {"prompt": "?"},
        {"channels": "lung"},
        {"channels": (-160, 240)},
        {"image_size": 32},
        {"max_new_tokens": 13},
        {"do_sample": True},
        {"do_sample": True, "seed": 1},
        {"do_sample": True, "temperature": 0.5},
        {"dtype": "bf16"},
        {"attn_implementation": "eager"},
    ):
        versions.append(make_reporter(folder, **change).version)
    other = other_weights(folder, tmp_path)
    versions.append(make_reporter(other).version)
    assert len(set(versions)) == len(versions)


def test_the_place_of_the_model_is_no_part_of_the_version(folder, copy):
    assert make_reporter(copy).version == make_reporter(folder).version
    assert make_encoder(copy).version == make_encoder(folder).version


def test_making_one_reads_no_weights(copy):
    """Weights that are none are noticed by whoever reads them."""
    (copy / "model.safetensors").write_bytes(b"no weights")
    reporter, encoder = make_reporter(copy), make_encoder(copy)
    assert reporter.version
    assert encoder.version
    assert encoder.dim == 32
    with pytest.raises(PhysFedError, match="cannot be loaded"):
        reporter.report(slices(1))


@pytest.mark.parametrize(
    "missing",
    [
        "config.json",
        "preprocessor_config.json",
        "tokenizer.json",
        "model.safetensors",
        "chat_template.json",
    ],
)
def test_a_missing_file_is_named(copy, missing):
    (copy / missing).unlink()
    with pytest.raises(PhysFedError, match=missing.replace(".", r"\.")) as caught:
        make_reporter(copy)
    assert str(copy) in str(caught.value)
    assert str(caught.value).count("\n") == 0


def test_a_processor_without_its_settings_is_named(folders, tmp_path):
    copy = Path(shutil.copytree(folders["llava"], tmp_path / "model"))
    (copy / "processor_config.json").unlink()
    with pytest.raises(PhysFedError, match=r"processor_config\.json"):
        make_reporter(copy).report(slices(1))


@pytest.mark.parametrize(
    "template", ["{{ messages[0]['content'] }}", "{{ raise_exception('no') }}"]
)
def test_a_template_without_image_is_refused(copy, template):
    (copy / "chat_template.json").write_text(json.dumps({"chat_template": template}))
    with pytest.raises(PhysFedError, match="does not take one image and a prompt"):
        make_reporter(copy).report(slices(1))


def text_only(folder: Path, source: Path) -> Path:
    """Save a language model with the tokenizer of ``source``."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        vocab_size=16,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.json"):
        shutil.copy(source / name, folder / name)
    return folder


def test_a_language_model_is_refused(folders, tmp_path):
    folder = text_only(tmp_path / "llama", folders["llava"])
    with pytest.raises(PhysFedError, match="takes no image"):
        make_reporter(folder)
    # Even if it looks like more.
    for name in ("preprocessor_config.json", "processor_config.json"):
        shutil.copy(folders["llava"] / name, folder / name)
    with pytest.raises(PhysFedError, match="takes no image"):
        make_reporter(folder).report(slices(1))


def test_weights_of_another_model_are_refused(copy):
    from safetensors.torch import load_file, save_file

    weights = load_file(copy / "model.safetensors")
    gone = max(weights)
    save_file(
        {k: v for k, v in weights.items() if k != gone},
        copy / "model.safetensors",
        metadata={"format": "pt"},
    )
    with pytest.raises(PhysFedError, match="lack"):
        make_reporter(copy).report(slices(1))


def test_code_of_the_model_runs_only_if_the_user_says_so(copy):
    path, ran = copy / "config.json", copy / "ran"
    config = json.loads(path.read_text()) | {
        "model_type": "unheard_of",
        "auto_map": {"AutoConfig": "own.OwnConfig"},
    }
    path.write_text(json.dumps(config))
    (copy / "own.py").write_text(
        "from pathlib import Path\nfrom transformers import LlavaConfig\n"
        f"Path({str(ran)!r}).touch()\n"
        "class OwnConfig(LlavaConfig):\n    model_type = 'unheard_of'\n"
    )
    with pytest.raises(PhysFedError, match="trust_remote_code: true"):
        make_reporter(copy)
    assert not ran.exists()
    with pytest.raises(PhysFedError):
        make_reporter(copy, trust_remote_code=True).report(slices(1))
    assert ran.exists()


def test_the_layout_that_transformers_writes_now(folder, copy):
    """One processor_config.json for all parts, video included, and a template file of its own."""
    old = {
        name: json.loads((copy / name).read_text())
        for name in ("preprocessor_config.json", "processor_config.json", "chat_template.json")
        if (copy / name).exists()
    }
    for name in old:
        (copy / name).unlink()
    (copy / "chat_template.jinja").write_text(old["chat_template.json"]["chat_template"])
    images = old["preprocessor_config.json"]
    config = old.get("processor_config.json", {}) | {
        "processor_class": images.pop("processor_class"),
        "image_processor": images,
    }
    if "qwen" in folder.name:
        config["video_processor"] = {"video_processor_type": "Qwen2VLVideoProcessor"}
    (copy / "processor_config.json").write_text(json.dumps(config))
    assert make_reporter(copy).report(slices()) == make_reporter(folder).report(slices())


def test_memory_that_is_not_there_is_one_sentence():
    with (
        pytest.raises(PhysFedError, match=r"big does not fit in this machine: take less\."),
        fits_in_memory("big", "take less"),
    ):
        torch.empty(2**60)
    with pytest.raises(RuntimeError, match="another"), fits_in_memory("big", "take less"):
        raise RuntimeError("another error")


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": 0.5},
        {"seed": 1},
        {"channels": [240, -160]},
        {"channels": "liver"},
        {"max_new_tokens": 0},
        {"prompt": ""},
        {"do_samples": True},
    ],
)
def test_wrong_settings_are_refused(folder, wrong):
    with pytest.raises(ValidationError):
        make_reporter(folder, **wrong)


def test_settings_survive_being_written_out(folder):
    for settings in (
        make_reporter(folder, channels=[-100, 100], do_sample=True, seed=4).settings,
        make_reporter(folder).settings,
        MllmEncoder.Settings(tokens=3),
    ):
        assert type(settings).model_validate_json(settings.model_dump_json()) == settings


def test_no_text_is_logged_or_printed(folder, caplog, capfd):
    caplog.set_level(logging.INFO)
    texts = make_reporter(folder).report(slices())
    make_encoder(folder).encode(texts)
    shown = "".join([*capfd.readouterr(), *(record.getMessage() for record in caplog.records)])
    assert not any(text in shown for text in texts if text)


def test_a_folder_opens_no_connection(folder, monkeypatch):
    attempts = []

    def refuse(self, address):
        attempts.append(address)
        raise OSError("no network in this test")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    # Settings that no other test has, so that the model is loaded anew.
    reporter = make_reporter(folder, attn_implementation="sdpa", dtype="fp32")
    make_encoder(folder).encode(reporter.report(slices(1)))
    assert attempts == []


@pytest.mark.parametrize("tokens", [1, 4, 64])
def test_embeddings_do_not_depend_on_the_batch(folder, tokens):
    encoder = make_encoder(folder, tokens=tokens)
    vectors, mask = encoder.encode(TEXTS)
    assert vectors.shape == (len(TEXTS), tokens, encoder.dim)
    assert (vectors.dtype, mask.dtype) == (np.float32, np.uint8)
    alone = [encoder.encode([text]) for text in TEXTS]
    assert np.abs(vectors - np.concatenate([v for v, _ in alone])).max() < 1e-4
    assert np.array_equal(mask, np.concatenate([m for _, m in alone]))
    assert (vectors[mask == 0] == 0).all()


def test_the_mean_is_the_mean_of_the_tokens(folder):
    every, mask = make_encoder(folder, tokens=1024).encode(TEXTS)
    mean, _ = make_encoder(folder, tokens=1).encode(TEXTS)
    for vectors, real, expected in zip(every, mask, mean, strict=True):
        assert np.abs(vectors[real == 1].mean(0) - expected[0]).max() < 1e-4


def test_longer_texts_have_more_tokens_and_empty_ones_have_one(folder):
    vectors, mask = make_encoder(folder, tokens=8).encode(["", "lung", "lung " * 40])
    count = mask.sum(1)
    assert count[0] == 1
    assert count[0] <= count[1] < count[2] == 8
    assert np.abs(vectors[0, 0]).max() > 0
    assert np.isfinite(vectors).all()


def test_embeddings_tell_texts_apart(folder):
    vectors = make_encoder(folder).encode(TEXTS)[0][:, 0]
    distances = np.linalg.norm(vectors[:, None] - vectors[None], axis=-1)
    assert (distances[~np.eye(len(TEXTS), dtype=bool)] > 0.1).all()


def test_states_are_those_of_the_model_over_the_report(folder):
    """One plain forward pass by hand, without padding."""
    encoder = make_encoder(folder, tokens=64)
    text = "liver spleen kidneys"
    vectors, mask = encoder.encode(["lung", text])
    from transformers import AutoModelForImageTextToText, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForImageTextToText.from_pretrained(folder)
    first = tokenizer.bos_token_id
    first = tokenizer.pad_token_id if first is None else first
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        output = model(input_ids=torch.tensor([[first, *ids]]), output_hidden_states=True)
    expected = output.hidden_states[-1][0, 1:].numpy()
    assert np.abs(vectors[1][mask[1] == 1] - expected).max() < 1e-4


def test_nothing_to_embed(folder):
    vectors, mask = make_encoder(folder, tokens=2).encode([])
    assert vectors.shape == (0, 2, 32)
    assert mask.shape == (0, 2)


def test_the_encoder_takes_the_reporters_model_and_its_weights_once(folder):
    reporter = make_reporter(folder, dtype="bf16", prompt="?")
    settings = MllmEncoder.Settings(tokens=2).with_model(reporter.settings)
    assert (settings.model, settings.dtype, settings.tokens) == (str(folder), "bf16", 2)
    encoder = MllmEncoder(settings)
    encoder.encode(reporter.report(slices(2)))
    assert encoder._mllm is reporter._mllm
    named = MllmEncoder.Settings(model=str(folder))
    assert named.with_model(reporter.settings) == named


def test_the_encoder_needs_a_model():
    for make in (
        lambda: MllmEncoder.Settings().with_model(PartSettings()),
        lambda: MllmEncoder(MllmEncoder.Settings()),
    ):
        with pytest.raises(PhysFedError, match=r"reports\.encoder\.model"):
            make()
    with pytest.raises(ValidationError, match="dtype is the reporter's"):
        MllmEncoder.Settings(dtype="bf16")


def test_whatever_changes_the_vectors_changes_the_encoders_version(folder):
    changes: list[dict[str, Any]] = [{}, {"tokens": 2}, {"dtype": "bf16"}]
    assert len({make_encoder(folder, **change).version for change in changes}) == 3


def test_a_folder_that_changes_is_loaded_again(copy, folder, tmp_path):
    before = make_reporter(copy).report(slices())
    other = other_weights(folder, tmp_path)
    shutil.copy(other / "model.safetensors", copy / "model.safetensors")
    assert make_reporter(copy).report(slices()) != before
