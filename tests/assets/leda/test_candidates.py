"""Candidate words by the report's text, by a CLIP, and what is kept of them."""

import json
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from physfed_ray.assets.leda import candidates as module
from physfed_ray.assets.leda.candidates import (
    Candidates,
    Prompts,
    chosen,
    token_names,
    token_table,
    whole_words,
)
from physfed_ray.reports.encoder import MiniLM, minilm_folder
from tests.assets.leda.tiny import WORDS, examples


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep prompts in a folder of the test."""
    monkeypatch.setenv("PHYSFED_CACHE", str(tmp_path))
    return tmp_path


def test_whole_words_are_tokens_of_letters_alone() -> None:
    assert len(token_names()) == 30522
    assert len(whole_words()) == 21719
    assert {"ct", "liver", "kidney", "lungs"} <= set(whole_words())
    assert not {"[CLS]", "##ing", "2019", "a"} & set(whole_words())


def test_the_table_is_minilms_bit_for_bit() -> None:
    weights = safetensors.torch.load_file(minilm_folder() / "model.safetensors")
    liver = whole_words()["liver"]
    whole = weights["embeddings.word_embeddings.weight"]
    assert torch.equal(token_table([liver, 7]), whole[[liver, 7]])


def test_together_is_one_by_one() -> None:
    texts = ["A CT of liver", "A CT of head", "Axial CT of the chest, with the lungs in front."]
    alone, _ = MiniLM(MiniLM.Settings()).encode(texts)
    np.testing.assert_allclose(Prompts(Prompts.Settings()).embed(texts), alone[:, 0], atol=1e-5)


def test_scores_are_normalised_before_the_thresholds() -> None:
    layers = chosen(np.array([-1.0, 1.0, 0.91, 0.82, 0.62, 0.58]))  # 0, 1, .955, .91, .81, .79
    assert [places.tolist() for places in layers] == [[1, 2], [1, 2, 3], [1, 2, 3, 4]]


def test_words_of_a_report_name_its_region_and_prompts_are_embedded_once(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slices = examples()
    found = Candidates(WORDS).of(slices)
    best = [{WORDS[place] for place in layers[0]} for layers in found]
    assert best[0] <= {"chest", "lungs", "lung", "pulmonary"}
    assert best[1] <= {"abdomen", "liver", "organs"}
    assert best[2] <= {"head", "skull", "brain"}
    assert len(list((cache / "prompts").iterdir())) == 1
    embedded: list[int] = []
    real = Prompts.embed
    monkeypatch.setattr(
        Prompts, "embed", lambda self, texts: (embedded.append(len(texts)), real(self, texts))[1]
    )
    again = Candidates(WORDS)
    pairs = zip(again.of(slices), found, strict=True)
    assert all(np.array_equal(a, b) for one, two in pairs for a, b in zip(one, two, strict=True))
    again.of(slices)
    assert embedded == [3]  # the reports; no prompts


def test_a_neutral_report_takes_off_what_fits_every_report() -> None:
    words = (*WORDS, "axial")
    plain, less = (
        Candidates(words, neutral=share)._similarity(examples(), [0, 1, 2]) for share in (0, 0.5)
    )
    above = [(rows > rows[:, -1:]).sum() for rows in (plain, less)]
    assert above[0] < above[1]  # "axial" falls behind words of the anatomy
    neutral = Prompts(Prompts.Settings()).embed(["Axial CT slice.", "A CT of axial"])
    np.testing.assert_allclose(plain[:, -1] - less[:, -1], 0.5 * neutral[0] @ neutral[1], atol=1e-5)


def test_a_damaged_cache_is_made_again(cache: Path) -> None:
    found = Candidates(WORDS[:4])._prompts
    (path,) = (cache / "prompts").iterdir()
    path.write_bytes(path.read_bytes()[:100])
    assert np.array_equal(Candidates(WORDS[:4])._prompts, found)
    assert module._read(path, 4) is not None


def make_tiny_clip(folder: Path) -> Path:
    """Save a CLIP of random weights whose tokenizer knows the prompts' words."""
    from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPVisionConfig

    from tests.reports.tiny_tokenizers import byte_level, save_tokenizer

    ids = save_tokenizer(folder, byte_level(), {"eos": "<|im_end|>", "pad": "<|endoftext|>"}, ())
    common = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2,
              "num_attention_heads": 2, "initializer_range": 0.5}  # fmt: skip
    special = {"eos_token_id": ids["<|im_end|>"], "pad_token_id": ids["<|endoftext|>"]}
    text = CLIPTextConfig(**common, **special, vocab_size=len(ids), bos_token_id=None)
    vision = CLIPVisionConfig(**common, image_size=28, patch_size=14)
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        config = CLIPConfig(
            text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=8
        )
        CLIPModel(config).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(
        json.dumps({
            "image_processor_type": "CLIPImageProcessor", "processor_class": "CLIPProcessor",
            "size": {"shortest_edge": 28}, "crop_size": {"height": 28, "width": 28},
            "image_mean": [0.48, 0.46, 0.41], "image_std": [0.27, 0.26, 0.28],
        })
    )  # fmt: skip
    return folder


def test_a_clip_looks_at_the_image_and_not_at_the_report(tmp_path: Path) -> None:
    folder = make_tiny_clip(tmp_path / "clip")
    slices = examples(slices=2)
    slices.batch.full[1] = slices.batch.full[1].flip(-1) * 0.5 + 0.2
    asked = Candidates(WORDS, str(folder))
    seen = asked._similarity(slices, [0, 1])
    assert seen.shape == (2, len(WORDS))
    assert np.abs(seen).max() <= 1 + 1e-5
    assert np.abs(seen[0] - seen[1]).max() > 1e-3
    assert [len(layers) for layers in asked.of(slices)] == [3, 3]
