"""PyTorch: float32, and its dynamic int8 quantization of linear layers."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from rewriting import rewriting
from turns import Call, Restore, ids, nothing, serve

_CLASSES = {
    "encode": transformers.BertModel,
    "prefill": transformers.GPT2LMHeadModel,
    "step": transformers.GPT2LMHeadModel,
    "rewrite": transformers.BartForConditionalGeneration,
}


def load(request: dict[str, Any]) -> tuple[Call, Restore]:
    """Returns the call of one variant."""
    torch.set_num_threads(request["threads"])
    torch.set_grad_enabled(False)
    model = _CLASSES[request["kind"]].from_pretrained(Path(request["folder"]) / "float").eval()
    if request["variant"] == "int8":
        if "ONEDNN_MAX_CPU_ISA" in os.environ:
            # The default, FBGEMM, takes AVX-512 wherever the processor has it; oneDNN keeps to its variable.
            torch.backends.quantized.engine = "onednn"
        _as_linear(model)
        model = torch.ao.quantization.quantize_dynamic(model, {torch.nn.Linear}, dtype=torch.qint8)
    if request["kind"] == "rewrite":
        return rewriting(model, request), nothing
    given, tokens = torch.from_numpy(ids(request)), request["tokens"]
    if request["kind"] == "encode":
        return lambda: model(given).last_hidden_state.numpy(), nothing
    if request["kind"] == "prefill":
        return lambda: model(given[:, :tokens], use_cache=True, logits_to_keep=1).logits[:, -1].numpy(), nothing
    cache = model(given[:, :tokens], use_cache=True, logits_to_keep=1).past_key_values

    def step() -> np.ndarray:
        return model(given[:, tokens:], past_key_values=cache, use_cache=True).logits[:, -1].numpy()

    return step, lambda: cache.crop(tokens)


def _as_linear(model: torch.nn.Module) -> None:
    """GPT-2 keeps its weights the other way round, in a class that the quantizer does not know."""
    for parent in list(model.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, transformers.pytorch_utils.Conv1D):
                linear = torch.nn.Linear(layer.weight.shape[0], layer.weight.shape[1])
                linear.weight.copy_(layer.weight.T)
                linear.bias.copy_(layer.bias)
                setattr(parent, name, linear)


if __name__ == "__main__":
    serve(load, packages=("torch", "transformers"))
