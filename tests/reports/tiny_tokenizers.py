"""Tokenizers of the two usual kinds, trained on a few words of many scripts."""

from pathlib import Path

from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)
from tokenizers.processors import TemplateProcessing

WORDS = (
    "axial section through the chest with both lungs aerated and no effusion seen "
    "liver spleen kidneys vertebra bone soft tissue fat air normal small large left right "
    "Übersicht Größe Lunge unauffällig Wirbelkörper Höhe Gefäß é è ñ çırpı żebro "
    "胸部 肝臓 肺 骨 正常 異常 所見 なし 右 左 폐 간 뼈 정상 Печень лёгкие норма 🫁 🦴 "
    "describe this CT slice as a radiologist would : . , 0 1 2 3 4 5 6 7 8 9"
)
LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-_'\"()[]/"


def sentencepiece_like() -> Tokenizer:
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


def byte_level() -> Tokenizer:
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


def save_tokenizer(
    folder: Path,
    tokenizer: Tokenizer,
    roles: dict[str, str],
    others: tuple[str, ...],
    named: dict[str, str] | None = None,
) -> dict[str, int]:
    """Save a tokenizer.

    Args:
        folder: Made where it is missing.
        tokenizer: Without special tokens so far.
        roles: Special tokens by their roles: bos, eos, pad.
        others: Further special tokens.
        named: Those of them that the processor finds as attributes of the tokenizer.

    Returns:
        The number of each token.
    """
    from transformers import PreTrainedTokenizerFast

    tokenizer.add_special_tokens(
        [AddedToken(token, special=True) for token in (*roles.values(), *others)]
    )
    if "bos" in roles:
        bos = roles["bos"]
        tokenizer.post_processor = TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, tokenizer.token_to_id(bos))]
        )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        extra_special_tokens=named or {},
        **{f"{role}_token": token for role, token in roles.items()},
    )
    fast.save_pretrained(folder)
    return dict(tokenizer.get_vocab())
