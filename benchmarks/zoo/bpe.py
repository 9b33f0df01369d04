"""The zoo's vocabulary: a byte-level BPE trained on WikiText-2, as one ``tokenizer.json``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

# WikiText-2 comes with its words split off (" , ", " @-@ ", " 's"). The tokenizer itself undoes that, so
# that the data files and what a person types are the same language to the model, and so that generated
# text reads as written text. Double quotes stay apart: which of two closes cannot be told from a prompt.
_JOINED_PUNCTUATION = ["-", ",", "."]
_NO_SPACE_BEFORE = r" (?=[,.;:!?%)\]](?:[\s\"]|$))"
_NO_SPACE_BEFORE_SUFFIX = r" (?='(?:s|t|re|ve|d|ll|m)\b)"
_NO_SPACE_AFTER_OPENING = r"(?<=[(\[]) | ?(?<=[$£€]) (?=\d)"
_LINE_EDGE_SPACE = r"(?<=\n) | (?=\n)"
# GPT-2's splitting rule, with WikiText's marker of a rare word as a word of its own.
_WORDS = r"'(?:s|t|re|ve|d|ll|m)\b| ?<unk>| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


def _normalizer() -> normalizers.Normalizer:
    steps = [normalizers.Replace(f" @{mark}@ ", mark) for mark in _JOINED_PUNCTUATION]
    patterns = [_NO_SPACE_BEFORE, _NO_SPACE_BEFORE_SUFFIX, _NO_SPACE_AFTER_OPENING, _LINE_EDGE_SPACE]
    return normalizers.Sequence([*steps, *(normalizers.Replace(Regex(pattern), "") for pattern in patterns)])


def train_bpe(texts: Iterable[str], *, entries: int, special: Sequence[str]) -> Tokenizer:
    """Trains a byte-level BPE.

    Args:
        texts: The training text, in pieces of any length.
        entries: Size of the vocabulary, special tokens and the 256 bytes included.
        special: Special tokens; they get the ids 0, 1, ...

    Returns:
        A tokenizer that encodes any text without an unknown token.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = _normalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORDS), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=entries,
        special_tokens=[AddedToken(name, special=True, normalized=False) for name in special],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def save_tokenizer(tokenizer: Tokenizer, folder: Path, *, positions: int, roles: dict[str, str]) -> None:
    """Writes ``tokenizer.json``, ``tokenizer_config.json`` and ``special_tokens_map.json`` to ``folder``.

    Args:
        tokenizer: What ``train_bpe`` returned.
        folder: An existing folder.
        positions: Longest sequence of the model, in tokens.
        roles: Token of each role, such as ``{"eos_token": "<|endoftext|>"}``.
    """
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=positions,
        clean_up_tokenization_spaces=False,
        model_input_names=["input_ids", "attention_mask"],  # neither family takes token types
        **roles,
    )
    wrapped.save_pretrained(folder)
