"""Brings the tensors of a checkpoint under the names that a model has for them, or says which one does not fit."""

from __future__ import annotations

import copy
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from transformers.models.auto import modeling_auto

from edgeq.errors import FormatError, UsageError
from edgeq.models.transformers_release import other_names
from edgeq.quiet import quiet_transformers
from edgeq.weight_files import Stored

_WRAPPERS = re.compile(r"(?:module|_orig_mod|0|auto_model)\.")
"""What DataParallel, torch.compile and sentence-transformers put before all names."""
_OLD_NAMES = ((re.compile(r"(^|\.)gamma$"), r"\1weight"), (re.compile(r"(^|\.)beta$"), r"\1bias"))
"""How checkpoints that were converted from TensorFlow call the weights of a LayerNorm."""
_LEFTOVERS = re.compile(r"(?:^|\.)(?:position_ids|attn\.bias|attn\.masked_bias|crossattention\.(?:masked_)?bias)$")
"""Constants that older releases stored and newer ones compute: counts of positions, causal masks."""
_MAPPINGS = (
    "MODEL_MAPPING",
    "MODEL_FOR_PRETRAINING_MAPPING",
    "MODEL_FOR_MASKED_LM_MAPPING",
    "MODEL_FOR_CAUSAL_LM_MAPPING",
    "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING",
    "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING",
    "MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING",
    "MODEL_FOR_QUESTION_ANSWERING_MAPPING",
    "MODEL_FOR_MULTIPLE_CHOICE_MAPPING",
    "MODEL_FOR_NEXT_SENTENCE_PREDICTION_MAPPING",
)


def fit_names(
    found: Mapping[str, Stored],
    expected: Mapping[str, tuple[int, ...]],
    *,
    prefix: str,
    config: Any,
    optional: Collection[str] = (),
    repeated: Mapping[str, str] | None = None,
    where: Path,
) -> dict[str, str]:
    """Finds the stored tensor of each tensor of a model.

    Stored names may lack the prefix of the model's body (``bert.``), have it where the model has none, or twice, or
    stand behind a wrapper's. What is stored and not asked for must be explained: a head of another task, or a constant.

    Args:
        found: What the files hold.
        expected: Shapes of the model's tensors by name.
        prefix: ``base_model_prefix`` of the model's class.
        config: The model's configuration, which tells the heads that its family has.
        optional: Expected names that need not be stored.
        repeated: Pairs of expected names of one tensor; one of the two is enough.
        where: The file, for messages.

    Returns:
        Stored names by the model's names.

    Raises:
        FormatError: If a tensor is missing, has another shape or type, or is stored twice.
        UsageError: If a stored tensor belongs to no model of this family.
    """
    places: dict[str, str] = {}
    unexpected = []
    for name in found:
        wanted = next((n for n in _candidates(name, prefix) if n in expected), None)
        if wanted is None:
            unexpected.append(name)
        elif wanted in places:
            raise FormatError(f"{where} holds {wanted!r} twice, as {places[wanted]!r} and {name!r}: keep one of them")
        else:
            places[wanted] = name
    twins = dict(repeated or {})
    twins |= {other: name for name, other in twins.items()}
    for name in expected:
        if name not in places and name not in optional and twins.get(name) not in places:
            hint = f" (it holds {unexpected[0]!r}, which the model does not know)" if unexpected else ""
            raise FormatError(f"{where} lacks tensor {name!r}{hint}; give a checkpoint that is whole and of this model")
    for name, stored_name in places.items():
        stored = found[stored_name]
        if stored.shape != tuple(expected[name]):
            raise FormatError(
                f"{where}: tensor {stored_name!r} should have shape {list(expected[name])} by config.json, "
                f"found {list(stored.shape)}"
            )
        if not stored.is_float:
            raise FormatError(
                f"{where}: tensor {stored_name!r} should hold floats of 16 bits or more, found {stored.dtype}"
            )
    _check_explained(unexpected, prefix=prefix, config=config, where=where)
    return places


def heads_in(found: Collection[str], *, prefix: str, config: Any) -> dict[str, list[str]]:
    """Returns the classes with a head of which a checkpoint holds every tensor, with those tensors.

    Args:
        found: Stored names.
        prefix: ``base_model_prefix`` of the family.
        config: The configuration.
    """
    stored = {_bare(name, prefix): name for name in found}
    body, whole = set(), {}
    for architecture, names in _family(config).items():
        if any(name.startswith(f"{prefix}.") for name in names):
            whole[architecture] = {name for name in names if not name.startswith(f"{prefix}.")}
        else:
            body |= names
    tails = {architecture: names - body for architecture, names in whole.items()}
    return {
        architecture: sorted(stored[_bare(name, prefix)] for name in names)
        for architecture, names in tails.items()
        if names and all(_bare(name, prefix) in stored for name in names)
    }


def _check_explained(unexpected: list[str], *, prefix: str, config: Any, where: Path) -> None:
    strange = [name for name in unexpected if not _LEFTOVERS.search(name)]
    if not strange:
        return
    known = {_bare(name, prefix) for names in _family(config).values() for name in names}
    # A model of one layer tells the names of all heads; the layers themselves fit or are missing.
    for name in strange:
        if _bare(name, prefix) not in known:
            raise UsageError(
                f"{where} holds tensor {name!r}, which no {config.model_type} model of transformers has; take it out, "
                "or give a checkpoint of this model alone"
            )


def _family(config: Any) -> dict[str, set[str]]:
    """Tensors of every class that transformers has for a configuration, of one layer, by the class's name."""
    small = copy.deepcopy(config)
    for name in ("num_hidden_layers", "decoder_layers"):
        if getattr(small, name, None) is not None:
            setattr(small, name, 1)
    families: dict[str, set[str]] = {}
    for mapping_name in _MAPPINGS:
        mapping = getattr(modeling_auto, mapping_name, {})
        if type(small) not in mapping:
            continue
        classes = mapping[type(small)]
        for model_class in classes if isinstance(classes, tuple | list) else [classes]:
            if model_class.__name__ not in families:
                with torch.device("meta"), quiet_transformers():
                    families[model_class.__name__] = set(model_class(small).state_dict())
    return families


def _candidates(name: str, prefix: str) -> list[str]:
    """Names under which a model may know a stored tensor, the nearest first."""
    plain = _plain(name)
    if prefix != "model":
        plain = plain.removeprefix("model.")  # of Lightning's modules
    bare = _without_prefix(plain, prefix)
    return list(dict.fromkeys([name, plain, f"{prefix}.{bare}", bare, *other_names(bare)]))


def _plain(name: str) -> str:
    """The name without wrappers, and with today's words."""
    while (wrapper := _WRAPPERS.match(name)) is not None:
        name = name[wrapper.end() :]
    for pattern, replacement in _OLD_NAMES:
        name = pattern.sub(replacement, name)
    return name


def _bare(name: str, prefix: str) -> str:
    return _without_prefix(_plain(name), prefix)


def _without_prefix(name: str, prefix: str) -> str:
    while prefix and name.startswith(f"{prefix}."):
        name = name.removeprefix(f"{prefix}.")
    return name


