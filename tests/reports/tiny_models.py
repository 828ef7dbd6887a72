"""Tiny image-text-to-text models of real classes with random weights, in the published layout.

They are loaded like a model of billions of parameters: same files, same classes, same templates.
"""

import json
from pathlib import Path
from typing import Any

import torch

from tests.reports.tiny_tokenizers import byte_level, save_tokenizer, sentencepiece_like

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

GEMMA_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<start_of_turn>{{ message['role'] }}\n"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}<start_of_image>"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
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

    ids = save_tokenizer(
        folder, sentencepiece_like(), {"bos": "<s>", "eos": "</s>", "pad": "<pad>"}, ("<image>",)
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
    ids = save_tokenizer(
        folder,
        byte_level(),
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


def make_tiny_gemma(folder: Path, width: int = 32, layers: int = 2, seed: int = 0) -> Path:
    """Save a Gemma 3 (as MedGemma: SigLIP, tied embeddings, sliding window); return its folder.

    Args:
        folder: Made where it is missing.
        width: Length of the hidden states.
        layers: Of the language model and of the vision tower.
        seed: Of the weights.
    """
    from transformers import Gemma3Config, Gemma3ForConditionalGeneration

    images = {
        "boi_token": "<start_of_image>",
        "eoi_token": "<end_of_image>",
        "image_token": "<image_soft_token>",
    }
    ids = save_tokenizer(
        folder,
        sentencepiece_like(),
        {"bos": "<bos>", "eos": "<eos>", "pad": "<pad>"},
        (*images.values(), "<start_of_turn>", "<end_of_turn>"),
        images,
    )
    common = {
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
    }
    spread = SPREAD / width**0.5
    config = Gemma3Config(
        text_config=common
        | {
            "vocab_size": len(ids),
            "num_key_value_heads": 2,
            "head_dim": width // 4,
            "query_pre_attn_scalar": width // 4,
            "max_position_embeddings": 1024,
            "sliding_window": 32,
            "layer_types": ["sliding_attention"] * (layers - 1) + ["full_attention"],
            "initializer_range": spread,
            "bos_token_id": ids["<bos>"],
            "eos_token_id": ids["<eos>"],
            "pad_token_id": ids["<pad>"],
        },
        vision_config=common | {"image_size": 56, "patch_size": 14},
        mm_tokens_per_image=16,
        boi_token_index=ids["<start_of_image>"],
        eoi_token_index=ids["<end_of_image>"],
        image_token_index=ids["<image_soft_token>"],
        initializer_range=spread,
    )
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        model = Gemma3ForConditionalGeneration(config)
        # It is 0 until it is trained: no image would reach the text.
        torch.nn.init.normal_(model.model.multi_modal_projector.mm_input_projection_weight)
        # Embeddings that are the output's weights too would repeat the last token for ever.
        model.model.language_model.embed_tokens.weight.mul_(0.05)
        # Normalised queries and keys attend to everything alike, whatever the other weights.
        for layer in model.model.language_model.layers:
            layer.self_attn.q_norm.weight.fill_(4)
            layer.self_attn.k_norm.weight.fill_(4)
    model.save_pretrained(folder)
    _write(
        folder / "preprocessor_config.json",
        {
            "image_processor_type": "Gemma3ImageProcessor",
            "processor_class": "Gemma3Processor",
            "size": {"height": 56, "width": 56},
        },
    )
    _write(
        folder / "processor_config.json",
        {"processor_class": "Gemma3Processor", "image_seq_length": 16},
    )
    _write(folder / "chat_template.json", {"chat_template": GEMMA_TEMPLATE})
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


def _write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1))
