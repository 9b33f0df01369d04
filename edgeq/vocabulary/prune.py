"""Vocabulary pruning: from a checkpoint and a corpus to the same model with fewer tokens."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import regex

from edgeq.checkpoint import Checkpoint
from edgeq.errors import FormatError, UsageError
from edgeq.formats.quantization_config import LeftOutTokens
from edgeq.models import adapter_for
from edgeq.models.generation_config import generation_settings
from edgeq.models.token_ids import needed_token_ids, renumbered_settings
from edgeq.progress import Progress, silent
from edgeq.recipes.vocabulary_section import VocabularySection
from edgeq.vocabulary.corpus import Corpus
from edgeq.vocabulary.rows import counts_positions_from_padding, keep_rows, token_table
from edgeq.vocabulary.tokenizer import TokenizerState, check_same_tokens


@dataclasses.dataclass(frozen=True)
class PrunedVocabulary:
    """What was left out.

    Attributes:
        record: Numbers of tokens, and the matrices that have fewer rows.
        new_ids: The number of each token that stays, by the one that it had.
        generation: Settings of generation with these numbers; None for models that generate nothing.
        original: The tokenizer as it was.
    """

    record: LeftOutTokens
    new_ids: Mapping[int, int]
    generation: dict[str, Any] | None
    original: Any


def prune_vocabulary(
    checkpoint: Checkpoint, section: VocabularySection, *, progress: Progress = silent
) -> PrunedVocabulary:
    """Leaves tokens out of a float model, its tokenizer and its settings, in place.

    Texts of the corpus are encoded as before, but for the numbers of their tokens, and the model computes the same for
    them; logits of tokens that have left are no longer there.

    Args:
        checkpoint: The float model; its model, tokenizer and adapter are changed.
        section: What stays.
        progress: Told how far the work is.

    Raises:
        UsageError: If the corpus is missing or empty.
        UnsupportedError: If the tokenizer or the model is of a kind that is not known here.
        FormatError: If tokenizer, settings and embedding table do not fit together.
        EdgeqError: If a text of the corpus would be encoded in another way.
    """
    corpus = Corpus(Path(section.keep))
    state = TokenizerState(checkpoint.tokenizer, checkpoint.folder)
    model = checkpoint.model
    count = token_table(model).num_embeddings
    generation = generation_settings(model, checkpoint.sentence.transformer) if model.can_generate() else None
    progress("pruning the vocabulary", 0, 3)
    kept = _kept(checkpoint, state, corpus, section, generation or {})
    progress("pruning the vocabulary", 1, 3)
    new_ids = {number: place for place, number in enumerate(kept)}
    tokenizer = state.reduced(kept)
    check_same_tokens(checkpoint.tokenizer, tokenizer, corpus, new_ids=new_ids)
    progress("pruning the vocabulary", 2, 3)
    rows = [number for number in kept if number < count]
    matrices = _change(checkpoint, rows, new_ids)
    checkpoint.tokenizer = tokenizer
    progress("pruning the vocabulary", 3, 3)
    return PrunedVocabulary(
        record=LeftOutTokens(tokens=len(rows), of=count, matrices=matrices),
        new_ids=new_ids,
        generation=None if generation is None else renumbered_settings(generation, new_ids),
        original=state.tokenizer,
    )


def prune_as(checkpoint: Checkpoint, pruned: PrunedVocabulary) -> None:
    """Leaves the same tokens out of another model with the same tokenizer, such as a teacher.

    Args:
        checkpoint: The other float model, changed in place.
        pruned: What was left out.

    Raises:
        UsageError: If the other model has another tokenizer.
    """
    own = token_table(checkpoint.model).num_embeddings
    if checkpoint.tokenizer.get_vocab() != pruned.original.get_vocab() or own != pruned.record.of:
        raise UsageError(
            f"{checkpoint.folder} has another vocabulary than the source, so that the recipe's [vocabulary] does not "
            "fit it; give a teacher with the same tokenizer"
        )
    _change(checkpoint, [number for number in pruned.new_ids if number < own], pruned.new_ids)


def _change(checkpoint: Checkpoint, rows: list[int], new_ids: Mapping[int, int]) -> tuple[str, ...]:
    matrices = keep_rows(checkpoint.model, rows, new_ids=new_ids)
    adapter = adapter_for(checkpoint.model)
    adapter.sentence = checkpoint.adapter.sentence
    checkpoint.adapter = adapter
    return matrices


def _kept(
    checkpoint: Checkpoint,
    state: TokenizerState,
    corpus: Corpus,
    section: VocabularySection,
    generation: Mapping[str, Any],
) -> list[int]:
    """Returns the tokens that stay: those of the tokenizer's model, then those that are added to it, each in order."""
    count = token_table(checkpoint.model).num_embeddings
    counted = corpus.counts(state.backend)
    if beyond := [number for number in counted if number >= count]:
        raise FormatError(
            f"the tokenizer in {checkpoint.folder} gives the token {state.backend.id_to_token(beyond[0])!r} of "
            f"{corpus.path} the number {beyond[0]}, but the embedding table has {count} rows"
        )
    needed = needed_token_ids(checkpoint.model.config.to_dict()) | needed_token_ids(generation)
    own, known = set(state.kind.tokens.values()), set(state.kind.tokens.values()) | set(state.added)
    # Settings may name a row of the table that the tokenizer has no token for.
    rows = {number for number in needed if number not in known and number < count}
    found = {number for number, times in counted.items() if times >= section.min_count}
    found |= (set(needed) & known) | state.special(all_of_them=section.keep_special) | state.kind.always
    if section.characters or state.is_of_bytes:
        found |= state.kind.characters
    if section.scripts:
        found |= _of_scripts(state, section.scripts)
    if counts_positions_from_padding(checkpoint.model):
        found |= {number for number in known if number < int(checkpoint.model.config.pad_token_id)}
    found = state.kind.closed(found & own) | (found - own)
    if rows and max(found) >= count:
        raise FormatError(
            f"{checkpoint.folder}: {needed[min(rows)]} is {min(rows)}, which is no token of the tokenizer, and the "
            f"tokenizer's token {max(found)} has no row in the embedding table; correct the settings"
        )
    return [*sorted(found & own), *sorted(found - own), *sorted(rows)]


def _of_scripts(state: TokenizerState, scripts: tuple[str, ...]) -> set[int]:
    """Returns the tokens whose letters are of the given scripts; digits and signs are of all of them."""
    names = "".join(rf"\p{{Script={name}}}" for name in ("Common", "Inherited", *scripts))
    wanted = regex.compile(rf"[{names}]+")
    texts = {number: _surface(token, state) for token, number in state.kind.tokens.items()}
    return {number for number, text in texts.items() if text is not None and wanted.fullmatch(text)}


def _surface(token: str, state: TokenizerState) -> str | None:
    """Returns the text that a token stands for, or None for a part of a character."""
    text = state.kind.text_of(token)
    if not state.is_of_bytes:
        return text
    decoded = state.tokenizer.convert_tokens_to_string([token])
    return None if "�" in decoded else str(decoded)
