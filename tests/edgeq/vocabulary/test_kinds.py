"""Tokenizers of every kind, trained on random words: the corpus keeps its tokens, other texts can still be encoded."""

import json
from pathlib import Path
from typing import Any

import pytest
import tokenizers
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeq.errors import FormatError, UnsupportedError
from edgeq.recipes.vocabulary_section import VocabularySection
from edgeq.vocabulary.corpus import Corpus
from edgeq.vocabulary.kinds import kind_of_model
from edgeq.vocabulary.tokenizer import TokenizerState, check_same_tokens

ALPHABET = "abcdeé ж"
UNKNOWN = "[UNK]"
SPECIAL = [UNKNOWN, "[PAD]", "[CLS]", "[SEP]"]
WORDS = st.lists(st.text(ALPHABET, min_size=1, max_size=12), min_size=1, max_size=12)
CORPUS = ["abc abcd bcde", "ab ab abc cde", "éa éab жab", "deed bead cab"] * 3


def _trained(kind: str, words: list[str]) -> tokenizers.Tokenizer:
    models, trainers, pre = tokenizers.models, tokenizers.trainers, tokenizers.pre_tokenizers
    options: dict[str, Any] = {"special_tokens": SPECIAL, "show_progress": False}
    if kind == "WordPiece":
        made = tokenizers.Tokenizer(models.WordPiece(unk_token=UNKNOWN))
        made.pre_tokenizer = pre.Whitespace()
        trainer: Any = trainers.WordPieceTrainer(vocab_size=60, **options)
    elif kind == "bytes":
        made = tokenizers.Tokenizer(models.BPE())
        made.pre_tokenizer, made.decoder = pre.ByteLevel(add_prefix_space=False), tokenizers.decoders.ByteLevel()
        trainer = trainers.BpeTrainer(vocab_size=300, initial_alphabet=pre.ByteLevel.alphabet(), **options)
    elif kind == "BPE":
        made = tokenizers.Tokenizer(models.BPE(unk_token=UNKNOWN, end_of_word_suffix="</w>"))
        made.pre_tokenizer = pre.Whitespace()
        trainer = trainers.BpeTrainer(vocab_size=60, end_of_word_suffix="</w>", **options)
    else:
        made = tokenizers.Tokenizer(models.Unigram())
        made.pre_tokenizer = pre.Metaspace()
        trainer = trainers.UnigramTrainer(vocab_size=40, unk_token=UNKNOWN, **options)
    made.train_from_iterator(words, trainer)
    made.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[(name, made.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
    )
    return made


def _wrapped(backend: tokenizers.Tokenizer) -> Any:
    roles = {"unk_token": UNKNOWN, "pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    return transformers.PreTrainedTokenizerFast(tokenizer_object=backend, **roles)


def _kept(state: TokenizerState, corpus: Corpus, *, characters: bool = True) -> list[int]:
    found = set(corpus.counts(state.backend)) | state.special(all_of_them=True) | state.kind.always
    found |= state.kind.characters if characters or state.is_of_bytes else set()
    return sorted(state.kind.closed(found))


KINDS = ["WordPiece", "BPE", "bytes", "Unigram"]
TRAINED = {kind: _wrapped(_trained(kind, CORPUS)) for kind in KINDS}


@pytest.mark.parametrize("kind", KINDS)
@given(words=WORDS, others=WORDS)
@settings(max_examples=25, deadline=None)
def test_the_corpus_keeps_its_tokens_and_others_are_encoded(
    kind: str, words: list[str], others: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    tokenizer = TRAINED[kind]
    file = tmp_path_factory.mktemp("corpus") / "corpus.txt"
    file.write_text("\n".join([*words, "ab"]), encoding="utf-8")
    corpus, state = Corpus(file), TokenizerState(tokenizer, file)
    kept = _kept(state, corpus)
    new, new_ids = state.reduced(kept), {number: place for place, number in enumerate(kept)}
    check_same_tokens(tokenizer, new, corpus, new_ids=new_ids)
    assert len(new) == len(kept) <= len(tokenizer)
    for text in words:
        assert new.convert_ids_to_tokens(new(text)["input_ids"]) == tokenizer.convert_ids_to_tokens(
            tokenizer(text)["input_ids"]
        )
    for text in others:  # what was known stays known
        before, after = tokenizer(text)["input_ids"], new(text)["input_ids"]
        assert max(after) < len(kept)
        if tokenizer.unk_token_id not in before and kind != "WordPiece":
            assert new.unk_token_id not in after
        if kind == "bytes":
            assert new.decode(after, skip_special_tokens=True) == tokenizer.decode(before, skip_special_tokens=True)


def test_a_token_too_few_is_noticed(tmp_path: Path) -> None:
    """The check that runs on every corpus sees a merge that is missing."""
    tokenizer = TRAINED["BPE"]
    file = tmp_path / "corpus.txt"
    file.write_text("abcd\n")
    corpus, state = Corpus(file), TokenizerState(tokenizer, file)
    kept = _kept(state, corpus)
    table = json.loads(state.backend.to_str())
    parts = [number for number in kept if number in state.kind.closed(set(kept)) - set(corpus.counts(state.backend))]
    merged = [n for n in parts if n not in state.kind.characters | state.special(all_of_them=True)]
    assert merged, table["model"]["merges"]
    fewer = [number for number in kept if number != merged[0]]
    new = state.reduced(fewer)
    with pytest.raises(Exception, match="another way"):
        check_same_tokens(tokenizer, new, corpus, new_ids={number: place for place, number in enumerate(fewer)})


def test_merges_of_ready_words_and_bytes_stay(tmp_path: Path) -> None:
    model = {
        "type": "BPE",
        "byte_fallback": True,
        "ignore_merges": True,
        "vocab": {"<0x41>": 0, "a": 1, "b": 2, "ab": 3, "c": 4, "abc": 5, "whole": 6},
        "merges": ["a b", "ab c"],
    }
    kind = kind_of_model(model, tmp_path)
    assert kind.always == {0}
    assert kind.closed({5}) == {1, 2, 3, 4, 5}
    assert kind.closed({6}) == {6}
    assert kind.reduced([0, 1, 2, 3])["merges"] == [["a", "b"]]


def test_other_kinds_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="'Magic'"):
        kind_of_model({"type": "Magic", "vocab": {}}, tmp_path)
    with pytest.raises(FormatError, match="damaged"):
        kind_of_model({"type": "BPE", "vocab": {}}, tmp_path)
    with pytest.raises(FormatError, match="two tokens"):
        kind_of_model({"type": "BPE", "vocab": {}, "merges": ["a"]}, tmp_path)


def test_unknown_scripts_are_refused() -> None:
    with pytest.raises(ValueError, match="'Klingon'"):
        VocabularySection(keep="corpus.txt", scripts=("Latin", "Klingon"))
