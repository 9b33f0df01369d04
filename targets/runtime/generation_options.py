"""What a caller asks of generated texts, as libedgeq takes it; it checks the values."""

from __future__ import annotations

import ctypes
import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from edgeq.errors import UsageError
from edgeq.targets.runtime.beams import Beams
from edgeq.targets.runtime.native_generation import GenerationOptions
from edgeq.targets.runtime.sampling import Sampling

_EARLY = {False: 0, True: 1, "never": 2}


def generation_options(
    *,
    max_new_tokens: int | None,
    sampling: Sampling | None,
    min_new_tokens: int | None,
    no_repeat_ngram_size: int | None,
    batch: int,
    ignore_end: bool = False,
    stop: Sequence[str] = (),
    beams: Beams | None = None,
) -> GenerationOptions:
    """Returns ``edgeq_generation``; what is None is as the model's ``generation_config.json`` says.

    Raises:
        UsageError: If a value is of a wrong type or out of range.
    """
    if isinstance(stop, str) or not all(isinstance(text, str) and text for text in stop):
        raise UsageError(f"stop must be a list of texts that are not empty, found {stop!r}")
    counts = {
        "max_new_tokens": _count("max_new_tokens", max_new_tokens, at_least=1),
        "min_new_tokens": _count("min_new_tokens", min_new_tokens, at_least=0),
        "no_repeat_ngram_size": _count("no_repeat_ngram_size", no_repeat_ngram_size, at_least=0),
        "batch": _count("batch", batch, at_least=1),
    }
    options = GenerationOptions(
        size=ctypes.sizeof(GenerationOptions),
        **dict.fromkeys(("temperature", "top_p", "repetition_penalty", "length_penalty"), math.nan),
        **dict.fromkeys(("top_k", "seed", "beams", "early_stopping"), -1),
        **counts,
        ignore_end=ignore_end,
    )
    for field in dataclasses.fields(sampling) if sampling is not None else ():
        setattr(options, field.name, getattr(sampling, field.name))
    if beams is not None:
        options.beams = beams.count
        if beams.count > 1:
            options.length_penalty, options.early_stopping = beams.length_penalty, _EARLY[beams.early_stopping]
    options.stop = (ctypes.c_char_p * len(stop))(*(text.encode("utf-8", "surrogatepass") for text in stop))
    options.stop_count = len(stop)
    return options


def _count(name: str, value: int | None, *, at_least: int) -> int:
    if value is None:
        return -1
    if not isinstance(value, int | np.integer) or isinstance(value, bool) or not at_least <= value < 1 << 31:
        raise UsageError(f"{name} must be an integer of at least {at_least}, found {value!r}")
    return int(value)
