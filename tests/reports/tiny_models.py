"""Tiny image-text-to-text models of real classes with random weights, in the published layout.

They are loaded like a model of billions of parameters: same files, same classes, same templates.
"""

import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)

WORDS = (
    "axial section through the chest with both lungs aerated and no effusion seen "
    "liver spleen kidneys vertebra bone soft tissue fat air normal small large left right "
    "Übersicht Größe Lunge unauffällig Wirbelkörper Höhe Gefäß é è ñ çırpı żebro "
    "胸部 肝臓 肺 骨 正常 異常 所見 なし 右 左 폐 간 뼈 정상 Печень лёгкие норма 🫁 🦴 "
    "describe this CT slice as a radiologist would : . , 0 1 2 3 4 5 6 7 8 9"
)
LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-_'\"()[]/"
SPREAD = 3.4
"""Weights have this standard deviation over the root of the width: with the usual 0.02, all images
get one text."""

LLAVA_TEMPLATE = (
    "{% for message in messages %}{{ message['role'].upper() }}: "
    "{% for part in message['content'] if part['type'] == 'image' %}<image>\n{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] }}{% endfor %}"
    " {% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)
QWEN_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}"
    "<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def make_tiny_llava(folder: Path, width: int = 32, layers: int = 2, seed: int = 0) -> Path:
    """Save a LLaVA (CLIP and Llama) of a sentencepiece-like tokenizer; return its folder.

    Args:
        folder: Made where it is missing.
        width: Length of the hidden states.
        layers: Of the language model and of the vision tower.
        seed: Of the weights.
    """
    from transformers import (
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
    )

    ids = _save_tokenizer(
        folder, _sentencepiece_like(), {"bos": "<s>", "eos": "</s>", "pad": "<pad>"}, ("<image>",)
    )
    spread = SPREAD / width**0.5
    common = {
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "initializer_range": spread,
    }
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(**common, image_size=56, patch_size=14),
        text_config=LlamaConfig(
            **common,
            vocab_size=len(ids),
            num_key_value_heads=2,
            max_position_embeddings=1024,
            bos_token_id=ids["<s>"],
            eos_token_id=ids["</s>"],
            pad_token_id=ids["<pad>"],
        ),
        image_token_index=ids["<image>"],
        vision_feature_layer=-1,
        initializer_range=spread,
    )
    _save_model(LlavaForConditionalGeneration, config, folder, seed)
    _write(
        folder / "preprocessor_config.json",
        {
            "image_processor_type": "CLIPImageProcessor",
            "processor_class": "LlavaProcessor",
            "size": {"shortest_edge": 56},
            "crop_size": {"height": 56, "width": 56},
            "image_mean": [0.48, 0.46, 0.41],
            "image_std": [0.27, 0.26, 0.28],
        },
    )
    _write(
        folder / "processor_config.json",
        {
            "processor_class": "LlavaProcessor",
            "patch_size": 14,
            "vision_feature_select_strategy": "default",
            "num_additional_image_tokens": 1,
            "image_token": "<image>",
        },
    )
    _write(folder / "chat_template.json", {"chat_template": LLAVA_TEMPLATE})
    return folder


def make_tiny_qwen(folder: Path, width: int = 32, layers: int = 2, seed: int = 0) -> Path:
    """Save a Qwen2.5-VL (any image size, byte-level tokenizer, no BOS); return its folder.

    Args:
        folder: Made where it is missing.
        width: Length of the hidden states.
        layers: Of the language model and of the vision tower.
        seed: Of the weights.
    """
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    special = ("<|im_start|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>")
    ids = _save_tokenizer(
        folder,
        _byte_level(),
        {"eos": "<|im_end|>", "pad": "<|endoftext|>"},
        (*special, "<|video_pad|>"),
    )
    heads = 4
    spread = SPREAD / width**0.5
    common = {
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "initializer_range": spread,
    }
    config = Qwen2_5_VLConfig(
        text_config=common
        | {
            "vocab_size": len(ids),
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "num_key_value_heads": 2,
            "max_position_embeddings": 2048,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10000.0,
                "mrope_section": _sections(width // heads // 2),
            },
            "bos_token_id": None,
            "eos_token_id": ids["<|im_end|>"],
            "pad_token_id": ids["<|endoftext|>"],
        },
        vision_config=common
        | {
            "depth": layers,
            "num_heads": heads,
            "out_hidden_size": width,
            "fullatt_block_indexes": [layers - 1],
            "window_size": 56,
        },
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
    )
    _save_model(Qwen2_5_VLForConditionalGeneration, config, folder, seed)
    _write(
        folder / "preprocessor_config.json",
        {
            "image_processor_type": "Qwen2VLImageProcessor",
            "processor_class": "Qwen2_5_VLProcessor",
            "min_pixels": 28 * 28 * 4,
            "max_pixels": 28 * 28 * 64,
            "patch_size": 14,
            "temporal_patch_size": 2,
            "merge_size": 2,
            "image_mean": [0.48, 0.46, 0.41],
            "image_std": [0.27, 0.26, 0.28],
        },
    )
    _write(folder / "chat_template.json", {"chat_template": QWEN_TEMPLATE})
    return folder


def _sections(half: int) -> list[int]:
    """Split half a head's length among time, height and width."""
    time = half // 2
    height = (half - time) // 2
    return [time, height, half - time - height]


def _save_model(kind: Any, config: Any, folder: Path, seed: int) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        kind(config).save_pretrained(folder)


def _sentencepiece_like() -> Tokenizer:
    """Return a BPE of words with a leading mark, which spells what it does not know as bytes."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=700,
        special_tokens=["<unk>", "<s>", "</s>", "<pad>", *(f"<0x{i:02X}>" for i in range(256))],
        initial_alphabet=list(LETTERS),
        show_progress=False,
    )
    tokenizer.train_from_iterator([WORDS] * 4, trainer)
    return tokenizer


def _byte_level() -> Tokenizer:
    """Return a byte-level BPE, some of whose tokens are parts of characters."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([WORDS] * 4, trainer)
    return tokenizer


def _save_tokenizer(
    folder: Path, tokenizer: Tokenizer, roles: dict[str, str], others: tuple[str, ...]
) -> dict[str, int]:
    """Save a tokenizer with its special tokens; return the number of each token."""
    from transformers import PreTrainedTokenizerFast

    tokenizer.add_special_tokens(
        [AddedToken(token, special=True) for token in (*roles.values(), *others)]
    )
    if "bos" in roles:
        from tokenizers.processors import TemplateProcessing

        bos = roles["bos"]
        tokenizer.post_processor = TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, tokenizer.token_to_id(bos))]
        )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, **{f"{role}_token": token for role, token in roles.items()}
    )
    fast.save_pretrained(folder)
    return dict(tokenizer.get_vocab())


def _write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1))
