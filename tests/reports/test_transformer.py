"""Text models of real classes, tiny and random: BERT, and CLIP with and without its images."""

import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
    BertModel,
    CLIPConfig,
    CLIPModel,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPVisionConfig,
    PreTrainedTokenizerFast,
    T5Config,
)

from physfed_ray.errors import PhysFedError
from physfed_ray.reports.encoder import TextModel

TEXTS = [
    "Axial CT of the chest at the level of the heart.",
    "",
    "胸部CT：两肺清晰。 Über die Lunge — ß, é, 🫁",
    "lung " * 200,
    "A lone \ud800 surrogate, a \x00 byte and an <end> of text in the middle.",
    "bone",
]
LONGEST = 24
TEXT = {
    "vocab_size": 300,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": LONGEST,
}


def save_tokenizer(folder: Path) -> None:
    """Train a byte-level tokenizer that puts <start> and <end> around each text."""
    # <end> is not number 2, of which transformers believes that it means the largest number.
    special = ["<pad>", "<unk>", "<start>", "<end>"]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=special, initial_alphabet=alphabet)
    tokenizer.train_from_iterator(TEXTS[:1], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<start> $A <end>", special_tokens=[("<start>", 2), ("<end>", 3)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<start>", eos_token="<end>"
    ).save_pretrained(folder)


def clip_text_config(**changes) -> CLIPTextConfig:
    ids = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}
    return CLIPTextConfig(**(TEXT | ids | {"projection_dim": 10} | changes))


def make_bert() -> BertModel:
    return BertModel(BertConfig(**TEXT))


def make_clip() -> CLIPModel:
    vision = CLIPVisionConfig(
        hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2,
        image_size=8, patch_size=4,
    )  # fmt: skip
    # The text tower's own projection_dim is one that the whole model does not heed.
    text = clip_text_config(projection_dim=99)
    return CLIPModel(
        CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=10)
    )


MODELS = {
    "bert": make_bert,
    "clip": make_clip,
    "clip text tower": lambda: CLIPTextModel(clip_text_config()),
    "clip text tower with projection": lambda: CLIPTextModelWithProjection(clip_text_config()),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    """One folder of each model."""
    made = {}
    for name, make in MODELS.items():
        torch.manual_seed(len(name))
        folder = made[name] = tmp_path_factory.mktemp(name.replace(" ", "_"))
        model = make()
        for parameter in model.parameters():  # so large that texts differ
            torch.nn.init.normal_(parameter, std=0.3)
        model.save_pretrained(folder)
        save_tokenizer(folder)
    return made


def encoder_of(folder: Path, **settings) -> TextModel:
    return TextModel(TextModel.Settings(model=str(folder), **settings))


def reference(folder: Path, kind, text: str):
    """Run a text through a class of transformers, without our code."""
    clean = text.encode("utf-8", "replace").decode()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    batch = tokenizer(clean, return_tensors="pt", truncation=True, max_length=LONGEST)
    model = kind.from_pretrained(folder).eval()
    with torch.no_grad():
        if kind is CLIPModel:
            return model.get_text_features(input_ids=batch["input_ids"]).pooler_output[0]
        return model(input_ids=batch["input_ids"])


def unit(vector: torch.Tensor) -> np.ndarray:
    return (vector / vector.norm()).numpy()


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("tokens", [1, 5])
def test_any_text_gets_unit_vectors(folders, name, tokens):
    encoder = encoder_of(folders[name], tokens=tokens)
    vectors, mask = encoder.encode(TEXTS)
    assert vectors.shape == (len(TEXTS), tokens, encoder.dim)
    assert (vectors.dtype, mask.dtype) == (np.float32, np.uint8)
    assert np.linalg.norm(vectors, axis=-1) == pytest.approx(mask.astype(float), abs=1e-5)
    # Nothing but <start> and <end> is in an empty text.
    assert mask.sum(1).tolist() == [min(n, tokens) for n in (9, 2, 9, 9, 9, 9)]
    assert len({row.tobytes() for row in vectors}) == len(TEXTS)


@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
def test_mean_and_cls_of_bert(folders, text):
    hidden = reference(folders["bert"], BertModel, text).last_hidden_state[0]
    mean = encoder_of(folders["bert"]).encode([text])[0][0, 0]
    assert mean == pytest.approx(unit(hidden.mean(0)), abs=1e-5)
    cls = encoder_of(folders["bert"], pooling="cls").encode([text])[0][0, 0]
    assert cls == pytest.approx(unit(hidden[0]), abs=1e-5)


@pytest.mark.parametrize("text", TEXTS[:4], ids=range(4))
def test_clip_gives_the_features_that_it_compares_with_images(folders, text):
    """Without an <end> inside the text, where transformers would stop reading."""
    whole = encoder_of(folders["clip"])
    assert whole.dim == 10
    expected = unit(reference(folders["clip"], CLIPModel, text))
    assert whole.encode([text])[0][0, 0] == pytest.approx(expected, abs=1e-5)

    folder = folders["clip text tower with projection"]
    expected = unit(reference(folder, CLIPTextModelWithProjection, text).text_embeds[0])
    assert encoder_of(folder).encode([text])[0][0, 0] == pytest.approx(expected, abs=1e-5)

    tower = encoder_of(folders["clip text tower"])
    assert tower.dim == TEXT["hidden_size"]
    expected = unit(reference(folders["clip text tower"], CLIPTextModel, text).pooler_output[0])
    assert tower.encode([text])[0][0, 0] == pytest.approx(expected, abs=1e-5)


def test_clip_s_words_are_the_text_tower_s_states(folders):
    hidden = reference(folders["clip"], CLIPTextModel, "bone").last_hidden_state[0]
    vectors, mask = encoder_of(folders["clip"], tokens=LONGEST).encode(["bone"])
    assert vectors[0, : len(hidden)] == pytest.approx(
        torch.nn.functional.normalize(hidden, dim=-1).numpy(), abs=1e-5
    )
    assert mask.sum() == len(hidden)


@pytest.mark.parametrize("name", MODELS)
def test_no_bit_depends_on_the_other_texts(folders, name):
    rng = np.random.default_rng(3)
    encoder = encoder_of(folders[name])
    alone = {text: encoder.encode([text])[0][0] for text in TEXTS}
    for _ in range(5):
        texts = [TEXTS[i] for i in rng.integers(0, len(TEXTS), rng.integers(1, 9))]
        for text, vectors in zip(texts, encoder_of(folders[name]).encode(texts)[0], strict=True):
            assert np.array_equal(vectors, alone[text])


def test_the_version_follows_whatever_changes_the_vectors(folders):
    encoders = [
        encoder_of(folders["bert"]),
        encoder_of(folders["bert"], pooling="cls"),
        encoder_of(folders["bert"], tokens=4),
        encoder_of(folders["clip"]),
    ]
    assert len({encoder.version for encoder in encoders}) == len(encoders)
    assert encoder_of(folders["bert"], pooling="mean").version == encoders[0].version


def test_poolings_that_a_model_does_not_have(folders):
    with pytest.raises(PhysFedError, match=r"set reports\.encoder\.pooling to cls or mean"):
        encoder_of(folders["bert"], pooling="eos")
    with pytest.raises(PhysFedError, match=r"set reports\.encoder\.pooling to eos or mean"):
        encoder_of(folders["clip"], pooling="cls")
    with pytest.raises(ValidationError, match="set tokens to 1, or pooling to mean"):
        encoder_of(folders["bert"], pooling="cls", tokens=4)


def test_models_that_do_not_encode_text(tmp_path, folders):
    T5Config().save_pretrained(tmp_path)
    for name in ("model.safetensors", "tokenizer.json"):
        (tmp_path / name).symlink_to(folders["bert"] / name)
    with pytest.raises(PhysFedError, match=r"\(t5\) is no text encoder"):
        encoder_of(tmp_path)


@pytest.mark.parametrize("lost", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_lost_file_is_named_before_anything_is_loaded(tmp_path, folders, lost):
    copy(folders["bert"], tmp_path, but=lost)
    with pytest.raises(PhysFedError, match=lost):
        encoder_of(tmp_path)


def test_weights_that_the_checkpoint_lacks_are_not_invented(tmp_path, folders):
    copy(folders["bert"], tmp_path, but="model.safetensors")
    weights = load_file(folders["bert"] / "model.safetensors")
    del weights["encoder.layer.1.output.dense.bias"]
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(PhysFedError, match=r"lacks weights.*output\.dense\.bias"):
        encoder_of(tmp_path).encode(["text"])


def test_models_made_for_another_task_are_read_silently(tmp_path, folders):
    """A BERT that was trained to fill in masked words has a head, and no pooler."""
    told = []
    logger = logging.getLogger("transformers")
    handler = logging.Handler(logging.WARNING)
    handler.emit = told.append
    logger.addHandler(handler)
    try:
        model = BertForMaskedLM(BertConfig(**TEXT))
        weights = load_file(folders["bert"] / "model.safetensors")
        model.bert.load_state_dict(weights, strict=False)
        model.save_pretrained(tmp_path)
        save_tokenizer(tmp_path)
        expected = encoder_of(folders["bert"]).encode(TEXTS)[0]
        assert np.array_equal(encoder_of(tmp_path).encode(TEXTS)[0], expected)
        encoder_of(folders["clip"]).encode(TEXTS)
    finally:
        logger.removeHandler(handler)
    assert told == []


def test_code_that_comes_with_a_model_is_not_run(tmp_path, folders):
    copy(folders["bert"], tmp_path, but="config.json")
    (tmp_path / "code.py").write_text("raise SystemExit('it ran')")
    classes = {"AutoModel": "code.Model", "AutoConfig": "code.Config"}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "own", "auto_map": classes}))
    with pytest.raises(PhysFedError, match="cannot be read"):
        encoder_of(tmp_path).encode(["text"])


def test_damaged_weights_are_one_sentence(tmp_path, folders):
    copy(folders["bert"], tmp_path, but="model.safetensors")
    (tmp_path / "model.safetensors").write_bytes(b"not at all")
    with pytest.raises(PhysFedError, match="cannot be read"):
        encoder_of(tmp_path).encode(["text"])


def test_a_folder_is_relative_to_the_experiment(folders):
    folder = folders["bert"]
    settings = TextModel.Settings.model_validate(
        {"model": f"./{folder.name}"}, context={"base": folder.parent}
    )
    assert settings.model == str(folder)
    assert TextModel(settings).dim == TEXT["hidden_size"]


def copy(source: Path, target: Path, but: str) -> None:
    for path in source.iterdir():
        if path.name != but:
            (target / path.name).symlink_to(path)
