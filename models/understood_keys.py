"""What a ``config.json`` may say: keys that are understood, instead of keys that are known to be bad.

A key that an adapter does not name may change what ``transformers`` computes, so it is refused by its name. Keys that
have the value that the family has anyway say nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import transformers

from edgeq.errors import UnsupportedError

_ABOUT_THE_FILE = {
    *("_name_or_path", "_commit_hash", "_attn_implementation", "_attn_implementation_autoset", "_num_labels"),
    *("architectures", "model_type", "name_or_path", "tokenizer_class", "torch_dtype", "dtype", "transformers_version"),
    *("finetuning_task", "task_specific_params", "id2label", "label2id", "num_labels", "problem_type"),
    "eos_token_ids",  # an older name, which no release of today reads
    *("sentence_transformers", "sbert_ce_default_activation_function"),
    *("quantization_config", "transformers_weights", "language", "license"),
}
_ABOUT_THE_CALL = {
    *("return_dict", "use_return_dict", "output_hidden_states", "output_attentions", "output_past", "use_cache"),
    *("torchscript", "use_bfloat16", "chunk_size_feed_forward", "gradient_checkpointing"),
}
_ABOUT_TRAINING = {
    *("initializer_range", "initializer_factor", "init_std", "layerdrop", "encoder_layerdrop", "decoder_layerdrop"),
    *("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout", "classifier_dropout_prob"),
    *("dropout", "attention_dropout", "activation_dropout", "hidden_dropout", "embd_pdrop", "attn_pdrop"),
    *("resid_pdrop", "classif_dropout", "qa_dropout", "seq_classif_dropout", "summary_first_dropout"),
}
_SPECIAL_TOKENS = {
    *("bos_token_id", "cls_token_id", "decoder_start_token_id", "eos_token_id", "mask_token_id", "pad_token_id"),
    *("sep_token_id", "prefix"),
}
_GENERATION = set(transformers.GenerationConfig().to_dict()) - _ABOUT_THE_FILE
COMMON_KEYS = frozenset(_ABOUT_THE_FILE | _ABOUT_THE_CALL | _ABOUT_TRAINING | _SPECIAL_TOKENS | _GENERATION)
"""Keys that mean the same in every family, and either change no output or are read elsewhere: special tokens and
settings of generation by the tokenizer and the runtime."""


def check_understood(
    config: Any, understood: Iterable[str], *, family: str, without_effect: dict[str, object] | None = None
) -> None:
    """Refuses a configuration that says something that edgeq does not know.

    Args:
        config: A ``transformers`` configuration.
        understood: Keys that the adapter reads or checks.
        family: Name of the model family, for the message.
        without_effect: Keys that change nothing as long as they have the value given here.

    Raises:
        UnsupportedError: If a key that is not understood differs from what the family has anyway.
    """
    known = COMMON_KEYS | set(understood)
    harmless = without_effect or {}
    for key, value in config.to_diff_dict().items():
        if key in known or (key in harmless and value == harmless[key]):
            continue
        raise UnsupportedError(
            f"config.json: {family} with {key} = {_short(value)} is not supported, because edgeq does not know what "
            f"{key} changes; remove the key if the model computes the same without it"
        )


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."
