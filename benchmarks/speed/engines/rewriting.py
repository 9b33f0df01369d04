"""Reading a text and writing another through ``generate`` of transformers, which three engines share."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from turns import Call, ids


def rewriting(model: Any, request: dict[str, Any]) -> Call:
    """Returns the call: every text becomes exactly ``new_tokens`` tokens, whatever would end it.

    Args:
        model: Has the ``generate`` of transformers.
        request: What the engine is asked for.
    """
    given = torch.from_numpy(ids(request))
    options = {
        "num_beams": request["beams"], "do_sample": False, "min_new_tokens": request["new_tokens"],
        "max_new_tokens": request["new_tokens"], "early_stopping": False,
    }  # fmt: skip

    def call() -> np.ndarray:
        with torch.no_grad():
            return written(model.generate(given, **options).numpy(), request)

    return call


def written(tokens: np.ndarray, request: dict[str, Any]) -> np.ndarray:
    """Returns the last ``new_tokens`` of each row: engines differ in what they say of the decoder's first token.

    Raises:
        ValueError: If a text is shorter.
    """
    if tokens.shape[1] < request["new_tokens"]:
        raise ValueError(f"{tokens.shape[1]} tokens were written, and {request['new_tokens']} asked for")
    return tokens[:, -request["new_tokens"] :].astype(np.float32)
