"""How a model generates text, read from its ``generation_config.json`` as transformers' ``generate`` reads it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgeq.errors import FormatError, UnsupportedError, UsageError
from edgeq.targets.bundle.model_info import GENERATION_FILE, read_generation_table
from edgeq.targets.runtime.beams import Beams
from edgeq.targets.runtime.sampling import Sampling
from edgeq.targets.runtime.settings import Filters, GenerationSettings

_READ = frozenset(
    {
        "do_sample",
        "temperature",
        "top_k",
        "top_p",
        "num_beams",
        "length_penalty",
        "early_stopping",
        "repetition_penalty",
    }
    | {"no_repeat_ngram_size", "min_length", "max_length", "min_new_tokens", "max_new_tokens"}
    | {"bad_words_ids", "suppress_tokens", "renormalize_logits"}
    | {"eos_token_id", "bos_token_id", "decoder_start_token_id", "forced_bos_token_id", "forced_eos_token_id"}
)
"""Settings that are read, here or with the model's tokens."""
_WITHOUT_EFFECT = frozenset(
    {
        "pad_token_id",
        "use_cache",
        "cache_implementation",
        "cache_config",
        "return_legacy_cache",
        "return_dict_in_generate",
    }
    | {"output_attentions", "output_hidden_states", "output_logits", "output_scores", "remove_invalid_values"}
    | {"low_memory", "prefill_chunk_size", "compile_config", "disable_compile", "transformers_version"}
    | {"is_assistant", "num_assistant_tokens", "num_assistant_tokens_schedule", "assistant_confidence_threshold"}
    | {"assistant_lookbehind", "assistant_early_exit", "target_lookbehind", "max_matching_ngram_size"}
    | {"_from_model_config", "_commit_hash", "trust_remote_code"}
)
"""Settings that change how fast texts are generated, or what is returned beside them, but not the texts."""
_NEUTRAL: dict[str, Any] = {
    "encoder_repetition_penalty": 1.0,
    "encoder_no_repeat_ngram_size": 0,
    "force_words_ids": None,
    "forced_decoder_ids": None,
    "constraints": None,
    "sequence_bias": None,
    "begin_suppress_tokens": None,
    "exponential_decay_length_penalty": None,
    "guidance_scale": 1.0,
    "num_beam_groups": 1,
    "num_return_sequences": 1,
    "diversity_penalty": 0.0,
    "penalty_alpha": 0.0,
    "prompt_lookup_num_tokens": None,
    "dola_layers": None,
    "max_time": None,
    "token_healing": False,
    "watermarking_config": None,
    "stop_strings": None,
}
"""Settings that change texts and that the runtimes do not have, with the values at which they change nothing."""
_NEUTRAL_SAMPLING: dict[str, Any] = {"min_p": 0.0, "typical_p": 1.0, "epsilon_cutoff": 0.0, "eta_cutoff": 0.0}
"""The same, of those that only matter where tokens are drawn by chance, as callers may ask of any bundle."""
_DEFAULT_TOP_K = 50
"""What transformers filters with when tokens are drawn and nothing says otherwise."""


def read_generation_settings(folder: Path, *, with_source: bool) -> GenerationSettings:
    """Reads what ``generate`` of transformers would do with the model.

    It takes ``generation_config.json``, and only where there is none the same keys of ``config.json``. Every key of the
    former is understood, or refused by name.

    Args:
        folder: The ONNX folder.
        with_source: True for an encoder-decoder.

    Raises:
        FormatError: If a value is of a wrong type or out of range.
        UnsupportedError: If the model asks for something that the runtimes do not do.
    """
    path, table = read_generation_table(folder)
    config = {"top_k": _DEFAULT_TOP_K, **table}
    config = {key: value for key, value in config.items() if value is not None}
    draws = config.get("do_sample", False)
    if not isinstance(draws, bool):
        raise FormatError(f"{path}: 'do_sample' must be true or false, found {draws!r:.60}")
    _check_supported(config, path, draws=draws, with_source=with_source)
    try:
        settings = GenerationSettings(
            sampling=_sampling(config, draws=draws),
            beams=Beams(
                config.get("num_beams", 1), config.get("length_penalty", 1.0), config.get("early_stopping", False)
            ),
            no_repeat_ngram_size=_count(config, "no_repeat_ngram_size", path) or 0,
            min_length=_count(config, "min_length", path) or 0,
            max_length=_count(config, "max_length", path, at_least=1),
            min_new_tokens=_count(config, "min_new_tokens", path),
            max_new_tokens=_count(config, "max_new_tokens", path, at_least=1),
            filters=Filters() if draws else _filters(table),
            banned_ids=_banned_ids(config, path),
            renormalize_logits=config.get("renormalize_logits", False),
        )
    except UsageError as error:
        raise FormatError(f"{path}: {error}; correct it and compile again") from error
    return settings


def _sampling(config: dict[str, Any], *, draws: bool) -> Sampling:
    penalty = config.get("repetition_penalty", 1.0)
    if not draws:
        return Sampling(repetition_penalty=penalty)
    return Sampling(config.get("temperature", 1.0), config.get("top_k", 0), config.get("top_p", 1.0), penalty)


def _filters(table: dict[str, Any]) -> Filters:
    """What transformers would draw with if it were asked to draw, as far as the file says it."""
    found = {key: table[key] for key in ("top_k", "top_p") if table.get(key) is not None}
    return Filters(**found)


def _banned_ids(config: dict[str, Any], path: Path) -> tuple[int, ...]:
    """Tokens that never come: bad words of one token, but for one that ends a text, and those that are suppressed."""
    ends = config.get("eos_token_id")
    ends = ends if isinstance(ends, list) else [ends]
    words, suppressed = config.get("bad_words_ids") or [], config.get("suppress_tokens") or []
    if not isinstance(words, list) or not all(isinstance(word, list) and word for word in words):
        raise FormatError(f"{path}: 'bad_words_ids' must be lists of token ids, found {words!r:.60}")
    if any(len(word) > 1 for word in words):
        raise UnsupportedError(
            f"{path} asks for 'bad_words_ids' of several tokens, and the runtimes keep out single tokens only; "
            "take them out of the file to compile without them"
        )
    banned = [token for word in words for token in word if token not in ends]
    for key, tokens in (("bad_words_ids", banned), ("suppress_tokens", suppressed)):
        if not isinstance(tokens, list) or not all(type(token) is int and token >= 0 for token in tokens):
            raise FormatError(f"{path}: {key!r} must be token ids, found {tokens!r:.60}")
    forced = [config.get(key) for key in ("forced_bos_token_id", "forced_eos_token_id")]
    if any(token in forced for token in suppressed):
        raise UnsupportedError(f"{path} forces and suppresses one token ('suppress_tokens'); take one of the two out")
    return tuple(sorted({*banned, *suppressed}))


def _count(config: dict[str, Any], key: str, path: Path, *, at_least: int = 0) -> int | None:
    value = config.get(key)
    if value is not None and not (type(value) is int and at_least <= value < 1 << 31):
        raise FormatError(f"{path}: {key!r} must be an integer of at least {at_least}, found {value!r}")
    return value


def _check_supported(config: dict[str, Any], path: Path, *, draws: bool, with_source: bool) -> None:
    neutral = {**_NEUTRAL, **_NEUTRAL_SAMPLING}
    known = {*_READ, *_WITHOUT_EFFECT, *neutral}
    if path.name == GENERATION_FILE and (unknown := sorted(set(config) - known)):
        raise UnsupportedError(
            f"{path} holds {', '.join(map(repr, unknown))}, which edgeq does not know and which may change texts; take "
            "it out of the file if it does not"
        )
    for key, value in neutral.items():
        if config.get(key, value) not in (value, None, []):  # an empty list says nothing either
            raise UnsupportedError(
                f"{path} asks for {key!r} ({config[key]!r}), which no runtime of edgeq does; take it out of the "
                "file to compile without it"
            )
    if config.get("cache_implementation") == "quantized":
        raise UnsupportedError(
            f"{path} asks for 'cache_implementation' ('quantized'), which changes texts and which no runtime of edgeq "
            "does; take it out of the file to compile without it"
        )
    beams = config.get("num_beams", 1)
    if beams != 1 and (draws or not with_source):
        reason = "together with 'do_sample'" if with_source else "for a model without an encoder"
        raise UnsupportedError(
            f"{path} asks for 'num_beams' ({beams!r}) {reason}, which no runtime of edgeq does; take it out of the "
            "file to compile without it"
        )
