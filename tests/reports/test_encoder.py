"""The sentence encoder: offline, batch-independent, safe with any text."""

import json
import shutil
import socket
from pathlib import Path

import numpy as np
import pytest

from physfed_ray.errors import PhysFedError
from physfed_ray.reports.encoder import MINILM_MAX_TOKENS, MiniLM, minilm_folder

TEXTS = [
    "Axial CT of the chest at the level of the heart.",
    "",
    "Axial CT of a single limb around the shaft of a long bone.",
    "胸部CT：两肺清晰。 Über die Lunge — ß, é, 🫁",
    "lung " * 3000,
    "A lone \ud800 surrogate and a \x00 byte.",
    "Chest CT through the heart, axial plane.",
    "   \n\t ",
]


def minilm(folder: Path | None = None, tokens: int = 1) -> MiniLM:
    return MiniLM(MiniLM.Settings(tokens=tokens), folder)


@pytest.fixture(scope="module")
def encoder() -> MiniLM:
    return minilm()


def test_shapes_and_unit_length(encoder):
    vectors, mask = encoder.encode(TEXTS)
    assert vectors.shape == (len(TEXTS), 1, encoder.dim) == (len(TEXTS), 1, 384)
    assert vectors.dtype == np.float32
    assert mask.dtype == np.uint8
    assert mask.all()
    assert np.linalg.norm(vectors, axis=-1) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("tokens", [1, 6])
def test_no_bit_depends_on_the_other_texts_or_their_order(tokens):
    rng = np.random.default_rng(1)
    encoder = minilm(tokens=tokens)
    alone = {text: encoder.encode([text])[0][0] for text in TEXTS}
    for _ in range(4):
        texts = [TEXTS[i] for i in rng.integers(0, len(TEXTS), rng.integers(2, 7))]
        vectors, _ = encoder.encode(texts)
        assert all(np.array_equal(v, alone[t]) for v, t in zip(vectors, texts, strict=True))


def test_short_texts_have_fewer_vectors():
    vectors, mask = minilm(tokens=8).encode(["", "lung", TEXTS[0]])
    assert mask.sum(1).tolist() == [2, 3, 8]  # [CLS] and [SEP] are two of them
    assert np.linalg.norm(vectors, axis=-1) == pytest.approx(mask.astype(float), abs=1e-5)


def test_nothing_to_encode(encoder):
    vectors, mask = encoder.encode([])
    assert vectors.shape == (0, 1, 384)
    assert mask.shape == (0, 1)


@pytest.mark.parametrize("tokens", [1, 3])
def test_vectors_are_means_over_groups_of_the_real_tokens(tokens):
    """The published model with one group: mean of the last hidden states, then unit length."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(minilm_folder(), local_files_only=True)
    model = AutoModel.from_pretrained(minilm_folder(), local_files_only=True).eval()
    # Padding to a fixed length on purpose: the mask must undo it.
    batch = tokenizer(TEXTS[0], return_tensors="pt", padding="max_length", max_length=64)
    with torch.no_grad():
        hidden = model(**batch).last_hidden_state[0]
    groups = np.array_split(hidden[batch["attention_mask"][0].bool()].numpy(), tokens)
    means = np.stack([group.mean(0) for group in groups])
    expected = means / np.linalg.norm(means, axis=1, keepdims=True)
    assert np.abs(minilm(tokens=tokens).encode(TEXTS[:1])[0][0] - expected).max() < 1e-5


def test_long_texts_are_cut_at_the_models_limit(encoder):
    cut = "lung " * (MINILM_MAX_TOKENS - 2)
    assert np.abs(encoder.encode([cut])[0] - encoder.encode([TEXTS[4]])[0]).max() < 1e-5


def test_meaning_is_nearer_than_form(encoder):
    vectors = encoder.encode(TEXTS)[0][:, 0]
    assert vectors[0] @ vectors[6] > vectors[0] @ vectors[2] + 0.1


def test_it_never_opens_a_connection(monkeypatch):
    attempts = []

    def refuse(self, address):
        attempts.append(address)
        raise OSError("no network in this test")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    minilm().encode(["text"])
    assert attempts == []


def test_a_missing_file_is_named(tmp_path: Path):
    folder = tmp_path / "model"
    shutil.copytree(minilm_folder(), folder, ignore=shutil.ignore_patterns("*.safetensors"))
    with pytest.raises(PhysFedError, match=r"model\.safetensors"):
        minilm(folder)


def test_the_version_follows_the_files(tmp_path: Path, encoder):
    folder = tmp_path / "model"
    shutil.copytree(minilm_folder(), folder)
    assert minilm(folder).version == encoder.version
    assert minilm(tokens=2).version != encoder.version
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"changed": 1}))
    assert minilm(folder).version != encoder.version
