"""edgeq's own bundle, through its Python runtime."""

from __future__ import annotations

from typing import Any

import numpy as np
from turns import Call, Restore, ids, nothing, serve

import edgeq
from edgeq.targets.runtime.beams import Beams


def load(request: dict[str, Any]) -> tuple[Call, Restore]:
    """Returns the call of a bundle."""
    bundle = edgeq.load(request["folder"], threads=request["threads"], verify=False)
    given = ids(request)
    if request["kind"] == "rewrite":
        return _rewriting(bundle, given, request), nothing
    if request["kind"] == "encode":
        inputs = {spec.name: np.ones_like(given) for spec in bundle.inputs}
        inputs |= {"input_ids": given, "token_type_ids": np.zeros_like(given)}
        return lambda: bundle.run(inputs)["last_hidden_state"], nothing
    batch, tokens = given.shape[0], request["tokens"]
    state = bundle.new_state(batch)

    def lengths(past: int, new: int) -> dict[str, np.ndarray]:
        return {"past_lengths": np.full(batch, past, np.int64), "new_lengths": np.full(batch, new, np.int64)}

    prompt = {"input_ids": given[:, :tokens], **lengths(0, tokens)}
    if request["kind"] == "prefill":
        return lambda: bundle.run(prompt, state=state)["logits"], nothing
    bundle.run(prompt, state=state)
    step = {"input_ids": given[:, tokens:], **lengths(tokens, 1)}
    return lambda: bundle.run(step, state=state)["logits"], nothing


def _rewriting(bundle: Any, given: np.ndarray, request: dict[str, Any]) -> Call:
    count, texts = request["new_tokens"], given.tolist()
    options = {"min_new_tokens": count, "max_new_tokens": count, "beams": Beams(request["beams"])}

    def call() -> np.ndarray:
        return np.array([one.ids[-count:] for one in bundle.rewrite(texts, **options)], np.float32)

    return call


if __name__ == "__main__":
    serve(load, packages=("edgeq",))
