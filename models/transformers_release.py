"""What differs between the releases of transformers that edgeq works with."""

from __future__ import annotations

from typing import Any

import torch
import transformers

from edgeq.errors import UnsupportedError

RELEASE = int(transformers.__version__.partition(".")[0])
"""The first number of the installed release."""
TOKENIZER_OF_RELEASE_5 = "TokenizersBackend"
"""What release 5 calls the class of tokenizers that ``tokenizer.json`` describes."""


_RENAMED = (("embed_out", "lm_head"),)
"""Modules that releases 4 and 5 have under two names: GPT-NeoX's output head."""


def other_names(name: str) -> list[str]:
    """Returns what the other release calls a module, or a tensor of it; usually nothing else."""
    pairs = (*_RENAMED, *((new, old) for old, new in _RENAMED))
    return [other + name.removeprefix(own) for own, other in pairs if name == own or name.startswith(f"{own}.")]


def renamed_for_release() -> dict[str, str]:
    """Returns what release 4 calls the modules that release 5 renamed; release 5 knows the old names by itself."""
    return {new: old for old, new in _RENAMED} if RELEASE < 5 else {}


def padding_mask(attention_mask: torch.Tensor) -> torch.Tensor:
    """Returns the mask as BERT and its kin take it without expanding it to sequence x sequence for every text.

    Release 4 makes an additive mask of three dimensions, release 5 takes one of four as it is; both come to the same.

    Args:
        attention_mask: int64, ``[batch, sequence]``, 1 for a token and 0 for padding.

    Returns:
        int64 ``[batch, 1, sequence]``, or float32 ``[batch, 1, 1, sequence]``.
    """
    return attention_mask[:, None, :] if RELEASE < 5 else additive_mask(attention_mask, torch.float32)


def additive_mask(attention_mask: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Returns what is added to attention scores: 0 for a token, the lowest number for padding.

    Args:
        attention_mask: int64, ``[batch, sequence]``.
        dtype: Type of the scores.

    Returns:
        ``[batch, 1, 1, sequence]``.
    """
    return (1.0 - attention_mask[:, None, None, :].to(dtype)) * torch.finfo(dtype).min


def in_words_of_release(values: dict[str, Any]) -> dict[str, Any]:
    """Returns a configuration in the words of the installed release of ``transformers``.

    Release 5 writes ``rope_parameters``, which release 4 takes no notice of: it would turn by the angles of a base of
    10,000, whatever the model was trained with. Release 5 itself reads both.

    Args:
        values: The contents of a ``config.json``.

    Raises:
        UnsupportedError: If release 4 has no words for them.
    """
    rope = values.get("rope_parameters")
    if RELEASE >= 5 or not isinstance(rope, dict):
        return values
    others = {key: value for key, value in values.items() if key != "rope_parameters"}
    if values["model_type"] == "modernbert":
        return others | _modernbert(rope, values.get("layer_types"))
    if values["model_type"] == "gpt_neox":
        named = {"rope_theta": "rotary_emb_base", "partial_rotary_factor": "rotary_pct"}
    else:
        named = {"rope_theta": "rope_theta"}
    found = {named[key]: value for key, value in rope.items() if key in named}
    scaling = {key: value for key, value in rope.items() if key not in named}
    if scaling.get("rope_type", "default") != "default":
        found["rope_scaling"] = scaling
    elif unknown := sorted(set(scaling) - {"rope_type"}):
        raise _no_words(f"rope_parameters with {unknown[0]!r}")
    return others | found


def is_misread(config: dict[str, Any], tokenizer: dict[str, Any]) -> bool:
    """Tells whether the installed release misreads a folder of release 5, which edgeq reads all the same.

    Args:
        config: The contents of ``config.json``.
        tokenizer: Those of ``tokenizer_config.json``.
    """
    is_later = isinstance(config.get("rope_parameters"), dict)
    return RELEASE < 5 and (is_later or tokenizer.get("tokenizer_class") == TOKENIZER_OF_RELEASE_5)


def _modernbert(rope: dict[str, Any], kinds: Any) -> dict[str, Any]:
    """Angles of layers of both kinds; release 4 has no other order of them than a global one every so many."""
    found: dict[str, Any] = {}
    for kind, key in (("full_attention", "global_rope_theta"), ("sliding_attention", "local_rope_theta")):
        angles = rope.get(kind, {})
        if not isinstance(angles, dict) or set(angles) - {"rope_theta", "rope_type"}:
            raise _no_words(f"rope_parameters of {kind}")
        if angles.get("rope_type", "default") != "default":
            raise _no_words(f"rope_parameters of type {angles['rope_type']!r}")
        found |= {key: angles["rope_theta"]} if "rope_theta" in angles else {}
    if isinstance(kinds, list) and kinds:
        is_global = [kind == "full_attention" for kind in kinds]
        orders = {number: [not at % number for at in range(len(kinds))] for number in range(1, len(kinds) + 1)}
        every = next((number for number, order in orders.items() if order == is_global), None)
        if every is None:
            raise _no_words("these layer_types")
        found["global_attn_every_n_layers"] = every
    return found


def _no_words(what: str) -> UnsupportedError:
    return UnsupportedError(
        f"config.json: {what} needs release 5 of transformers, and {transformers.__version__} is installed; install it"
    )
