"""Writes a BERT or GPT-2 checkpoint as a float32 GGUF file, the form that llama.cpp starts from.

No tokenizer goes in: calls are made with token ids. llama.cpp stores matrices ``[out, in]``.
"""

from __future__ import annotations

import json
from pathlib import Path

import gguf
import numpy as np
from safetensors.numpy import load_file

_GPT2_TENSORS = {
    "wte.weight": "token_embd.weight", "wpe.weight": "position_embd.weight", "ln_f": "output_norm",
    "ln_1": "attn_norm", "attn.c_attn": "attn_qkv", "attn.c_proj": "attn_output", "ln_2": "ffn_norm",
    "mlp.c_fc": "ffn_up", "mlp.c_proj": "ffn_down",
}  # fmt: skip
_BERT_TENSORS = {
    "embeddings.word_embeddings.weight": "token_embd.weight",
    "embeddings.position_embeddings.weight": "position_embd.weight",
    "embeddings.token_type_embeddings.weight": "token_types.weight",
    "embeddings.LayerNorm": "token_embd_norm",
    "attention.self.query": "attn_q", "attention.self.key": "attn_k", "attention.self.value": "attn_v",
    "attention.output.dense": "attn_output", "attention.output.LayerNorm": "attn_output_norm",
    "intermediate.dense": "ffn_up", "output.dense": "ffn_down", "output.LayerNorm": "layer_output_norm",
}  # fmt: skip
_PARTS = ("weight", "bias")


def write_gguf(checkpoint: Path, file: Path) -> None:
    """Writes ``file`` from the folder ``checkpoint``, which holds ``config.json`` and ``model.safetensors``."""
    config = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
    tensors = load_file(checkpoint / "model.safetensors")
    gpt2 = config["model_type"] == "gpt2"
    layers = config["n_layer" if gpt2 else "num_hidden_layers"]
    names = gpt2_names(layers) if gpt2 else _bert_names(layers)
    writer = gguf.GGUFWriter(file, config["model_type"])
    _describe(writer, config, layers)
    for source, name in names.items():
        array = tensors[source if source in tensors else f"transformer.{source}"]
        turned = gpt2 and array.ndim == 2 and name.startswith("blk.")  # GPT-2 keeps its layers [in, out]
        writer.add_tensor(name, np.ascontiguousarray(array.T if turned else array, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _describe(writer: gguf.GGUFWriter, config: dict[str, object], layers: int) -> None:
    def setting(*keys: str) -> int:
        return next(int(str(config[key])) for key in keys if config.get(key) is not None)

    width = setting("n_embd", "hidden_size")
    writer.add_context_length(setting("n_positions", "max_position_embeddings"))
    writer.add_embedding_length(width)
    writer.add_feed_forward_length(setting("intermediate_size") if "intermediate_size" in config else 4 * width)
    writer.add_block_count(layers)
    writer.add_head_count(setting("n_head", "num_attention_heads"))
    writer.add_layer_norm_eps(float(str(config.get("layer_norm_epsilon", config.get("layer_norm_eps")))))
    writer.add_vocab_size(setting("vocab_size"))
    writer.add_tokenizer_model("none")
    if config["model_type"] == "bert":
        writer.add_causal_attention(False)
        writer.add_pooling_type(gguf.PoolingType.NONE)
        writer.add_token_type_count(setting("type_vocab_size"))


def gpt2_names(layers: int) -> dict[str, str]:
    """Returns the names of tensors of GPT-2 in the checkpoint, and what the file calls them."""
    return _names(_GPT2_TENSORS, "h.{}.", layers, outside=("wte.weight", "wpe.weight", "ln_f"))


def _bert_names(layers: int) -> dict[str, str]:
    outside = tuple(name for name in _BERT_TENSORS if name.startswith("embeddings."))
    return _names(_BERT_TENSORS, "encoder.layer.{}.", layers, outside=outside)


def _names(table: dict[str, str], prefix: str, layers: int, *, outside: tuple[str, ...]) -> dict[str, str]:
    """Returns tensor names of the checkpoint and of the file; modules have a weight and a bias."""
    found: dict[str, str] = {}
    for source, name in table.items():
        places = [("", "")] if source in outside else [(prefix.format(i), f"blk.{i}.") for i in range(layers)]
        for before, block in places:
            if source.endswith(".weight"):
                found[before + source] = block + name
            else:
                found |= {f"{before}{source}.{part}": f"{block}{name}.{part}" for part in _PARTS}
    return found
