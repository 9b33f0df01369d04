"""sentence-transformers with another model's arithmetic.

It is also a program for a Python of its own, and so imports none of edgeq.

As a program it is given the folder and the kind, and then on standard input one request a line: the text, the prompt's
name, and whether its own model is to compute. Where it is not, each call of the model is a line of its own with the
arrays, and the next line of standard input is the result. Arrays are base64 of their bytes, with type and shape.
"""

from __future__ import annotations

import base64
import functools
import json
import os
import sys
from collections.abc import Callable
from typing import Any

EMBEDDER, SCORER = "SentenceTransformer", "CrossEncoder"
Compute = Callable[[dict[str, Any]], Any]
"""From arrays by input name to one array: token states, or logits."""


class SentenceEncoder:
    """A folder in sentence-transformers.

    Args:
        folder: The float model.
        kind: :data:`EMBEDDER` or :data:`SCORER`.
    """

    def __init__(self, folder: str, kind: str) -> None:
        import sentence_transformers

        self.version = sentence_transformers.__version__
        self._kind = kind
        self._library: Any = getattr(sentence_transformers, kind)(folder, device="cpu", local_files_only=True)
        self._model = _transformer_in(self._library)
        self._model.float()
        self._own = self._model.forward
        self._compute: Compute | None = None
        self.calls: list[dict[str, Any]] = []

        @functools.wraps(self._own)  # the library looks at the names of its arguments
        def forward(*arguments: Any, **named: Any) -> Any:
            return self._forward(*arguments, **named)

        self._model.forward = forward

    def let_go(self) -> None:
        """Gives back the memory of the library's own model."""
        import torch

        for parameter in self._model.parameters():
            parameter.data = torch.empty(0)

    def use(self, compute: Compute) -> None:
        """Lets another model compute from now on."""
        self._compute = compute

    def read(self, text: str | list[str], prompt_name: str | None) -> Any:
        """Returns the embedding of a text, or the score of a pair."""
        self.calls.clear()
        options = {} if prompt_name is None else {"prompt_name": prompt_name}
        if self._kind == SCORER:
            return self._library.predict([text], show_progress_bar=False, **options)[0]
        return self._library.encode([text], show_progress_bar=False, **options)[0]

    def _forward(self, *arguments: Any, **named: Any) -> Any:
        import torch
        from transformers.modeling_outputs import BaseModelOutput, SequenceClassifierOutput

        given = {name: value.numpy() for name, value in named.items() if isinstance(value, torch.Tensor)}
        self.calls.append(given)
        if self._compute is None:
            return self._own(*arguments, **named)
        result = torch.from_numpy(self._compute(given))
        if self._kind == SCORER:
            return SequenceClassifierOutput(logits=result)
        return BaseModelOutput(last_hidden_state=result)


def _transformer_in(library: Any) -> Any:
    """Returns the ``transformers`` model, which lies at different places in different releases."""
    from transformers import PreTrainedModel

    if isinstance(getattr(library, "model", None), PreTrainedModel):
        return library.model
    return next(module for module in library.modules() if isinstance(module, PreTrainedModel))


def packed(value: Any) -> Any:
    """Returns arrays as JSON values."""
    import numpy as np

    if isinstance(value, dict):
        return {name: packed(entry) for name, entry in value.items()}
    array = np.asarray(value, order="C")
    return [array.dtype.str, list(array.shape), base64.b64encode(array.tobytes()).decode()]


def unpacked(value: Any) -> Any:
    """Returns what :func:`packed` was given."""
    import numpy as np

    if isinstance(value, dict):
        return {name: unpacked(entry) for name, entry in value.items()}
    kind, shape, data = value
    return np.frombuffer(base64.b64decode(data), np.dtype(kind)).reshape(shape).copy()


def _serve(folder: str, kind: str) -> None:
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever libraries print is no answer

    def say(table: dict[str, Any]) -> None:
        print(json.dumps(table), file=answers, flush=True)

    def compute(given: dict[str, Any]) -> Any:
        say({"call": packed(given)})
        return unpacked(json.loads(sys.stdin.readline())["result"])

    try:
        encoder = SentenceEncoder(folder, kind)
    except Exception as error:
        say({"error": f"{type(error).__name__}: {error}"})
        return
    say({"version": encoder.version})
    for line in sys.stdin:
        request = json.loads(line)
        if not request["own"]:
            encoder.let_go()
            encoder.use(compute)
        try:
            result = encoder.read(request["text"], request["prompt_name"])
            say({"result": packed(result), "given": packed(encoder.calls[-1])})
        except Exception as error:
            say({"error": f"{type(error).__name__}: {error}"})


if __name__ == "__main__":
    _serve(sys.argv[1], sys.argv[2])
