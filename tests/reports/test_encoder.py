"""The sentence encoder: offline, batch-independent, safe with any text."""

import json
import shutil
import socket
from pathlib import Path

import numpy as np
import pytest

from physfed_ray.errors import PhysFedError
from physfed_ray.reports.encoder import MAX_TOKENS, MiniLM, minilm_folder

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


@pytest.fixture(scope="module")
def encoder() -> MiniLM:
    return MiniLM(MiniLM.Settings())


def test_shapes_and_unit_length(encoder):
    vectors, mask = encoder.encode(TEXTS)
    assert vectors.shape == (len(TEXTS), 1, encoder.dim) == (len(TEXTS), 1, 384)
    assert vectors.dtype == np.float32
    assert mask.dtype == np.uint8
    assert mask.all()
    assert np.linalg.norm(vectors, axis=-1) == pytest.approx(1, abs=1e-5)


def test_one_by_one_equals_batched(encoder):
    batched, _ = encoder.encode(TEXTS)
    single = np.concatenate([encoder.encode([text])[0] for text in TEXTS])
    assert np.abs(batched - single).max() < 1e-5


def test_order_and_repeats_are_kept(encoder):
    repeated = [TEXTS[0], TEXTS[2], TEXTS[0], TEXTS[1]]
    vectors, _ = encoder.encode(repeated)
    assert np.array_equal(vectors[0], vectors[2])
    backwards, _ = encoder.encode(repeated[::-1])
    assert np.abs(backwards[::-1] - vectors).max() < 1e-5


def test_nothing_to_encode(encoder):
    vectors, mask = encoder.encode([])
    assert vectors.shape == (0, 1, 384)
    assert mask.shape == (0, 1)


def test_pooling_is_the_mean_over_real_tokens(encoder):
    """The published model: mean of the last hidden states over the mask, then unit length."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(minilm_folder(), local_files_only=True)
    model = AutoModel.from_pretrained(minilm_folder(), local_files_only=True).eval()
    # Padding to a fixed length on purpose: the mask must undo it.
    batch = tokenizer(TEXTS[0], return_tensors="pt", padding="max_length", max_length=64)
    with torch.no_grad():
        hidden = model(**batch).last_hidden_state[0]
    mean = hidden[batch["attention_mask"][0].bool()].mean(0).numpy()
    expected = mean / np.linalg.norm(mean)
    assert np.abs(encoder.encode(TEXTS[:1])[0][0, 0] - expected).max() < 1e-5


def test_long_texts_are_cut_at_the_models_limit(encoder):
    cut = "lung " * (MAX_TOKENS - 2)
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
    MiniLM(MiniLM.Settings()).encode(["text"])
    assert attempts == []


def test_a_missing_file_is_named(tmp_path: Path):
    folder = tmp_path / "model"
    shutil.copytree(minilm_folder(), folder, ignore=shutil.ignore_patterns("*.safetensors"))
    with pytest.raises(PhysFedError, match=r"model\.safetensors"):
        MiniLM(MiniLM.Settings(), folder)


def test_the_version_follows_the_files(tmp_path: Path, encoder):
    folder = tmp_path / "model"
    shutil.copytree(minilm_folder(), folder)
    assert MiniLM(MiniLM.Settings(), folder).version == encoder.version
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"changed": 1}))
    assert MiniLM(MiniLM.Settings(), folder).version != encoder.version
