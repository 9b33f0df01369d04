"""BART and its relatives: an encoder that reads a text, and a decoder that writes another, or labels what was read."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

import torch
from torch import nn

from edgeq.errors import UnsupportedError
from edgeq.models.activations import check_activation
from edgeq.models.adapter import CacheShape, ExportPart, ModelAdapter, Seq2SeqAdapter, Task
from edgeq.models.bart_graphs import BartClassifier, BartEncoder, BartFirstStep, BartNextStep, BartWhole, Layout
from edgeq.models.cache import DEFAULT_CACHE_DTYPE, stored_names
from edgeq.models.config_checks import check_heads, check_labels, check_sizes, check_token
from edgeq.models.stacks import AttentionTap, LayerStack, Migration
from edgeq.models.understood_keys import check_understood

HEAD = "lm_head"
TABLE = "model.shared"
_SIDES = ("encoder", "decoder")
_ATTENTION = ("q_proj", "k_proj", "v_proj", "out_proj")
_LARGEST_SIZES = {
    "vocab_size": 1 << 31,
    "d_model": 1 << 20,
    "encoder_layers": 1000,
    "decoder_layers": 1000,
    "encoder_attention_heads": 1 << 20,
    "decoder_attention_heads": 1 << 20,
    "encoder_ffn_dim": 1 << 24,
    "decoder_ffn_dim": 1 << 24,
    "max_position_embeddings": 1 << 31,
}


UNDERSTOOD = frozenset(
    {*_LARGEST_SIZES, "activation_function", "scale_embedding", "is_encoder_decoder", "tie_word_embeddings"}
    | {"num_hidden_layers"}  # the encoder's depth a second time
    | {"save_step", "student_encoder_layers", "student_decoder_layers", "replacing_rate"}  # of how it was trained
    | {"extra_pos_embeddings"}  # which nobody reads
    | {"force_bos_token_to_be_generated"}  # an older name of forced_bos_token_id, which transformers reads
)
"""Keys of ``config.json`` that are read or checked."""


class BartLayers(ModelAdapter):
    """What all forms of BART and of its relatives have in common: two stacks of blocks on one table of tokens."""

    family: ClassVar[str] = "bart"
    display_name: ClassVar[str] = "BART"
    head_names: ClassVar[tuple[str, ...]]
    """Module names of the linear layers behind the decoder."""
    understood: ClassVar[frozenset[str]] = UNDERSTOOD
    """Keys of ``config.json`` that are read or checked."""
    norms_before: ClassVar[bool] = False
    """Whether a block normalises what its parts read, or the sum behind each."""
    normed_embeddings: ClassVar[bool] = True
    """Whether the sum of token and position is normalised."""
    scaled_by_tables: ClassVar[bool] = True
    """Whether the tables of tokens scale by themselves what is looked up (``scale_embedding``)."""
    learned_positions: ClassVar[bool] = True
    """Whether positions are stored, or computed by ``transformers`` when it makes the model."""

    @property
    def without_effect(self) -> dict[str, object]:
        """Keys that say how the family is made anyway: fairseq's, and one that release 5 reads of decoders alone."""
        return {
            "normalize_before": self.norms_before,
            "add_final_layer_norm": self.norms_before,
            "normalize_embedding": self.normed_embeddings,
            "static_position_embeddings": not self.learned_positions,
            "add_bias_logits": False,
            "is_decoder": False,
        }

    def check_config(self) -> None:
        """See :meth:`ModelAdapter.check_config`."""
        config = self.config
        check_sizes(config, _LARGEST_SIZES)
        for side in _SIDES:
            check_heads(config, width="d_model", heads=f"{side}_attention_heads")
        check_understood(config, self.understood, family=self.display_name, without_effect=self.without_effect)
        check_activation(config, "activation_function", family=self.display_name)
        if not config.is_encoder_decoder:
            raise UnsupportedError(f"{self.display_name} as a decoder alone is not supported, only with its encoder")

    @property
    def layout(self) -> Layout:
        """How the blocks are made."""
        scale = self.config.d_model**0.5 if self.config.scale_embedding and not self.scaled_by_tables else 1.0
        return Layout(self.norms_before, self.normed_embeddings, self.config.activation_function, scale)

    @property
    def linear_names(self) -> list[str]:
        """See :attr:`ModelAdapter.linear_names`."""
        names = []
        for side, attentions in zip(_SIDES, (("self_attn",), ("self_attn", "encoder_attn")), strict=True):
            parts = [f"{attention}.{part}" for attention in attentions for part in _ATTENTION] + [
                "fc1",
                "fc2",
            ]
            names += [f"{block}.{part}" for block in self._blocks(side) for part in parts]
        return [*names, *self.head_names]

    @property
    def embedding_names(self) -> list[str]:
        """See :attr:`ModelAdapter.embedding_names`."""
        return [TABLE, *self._of_both_sides("embed_tokens"), *self._of_both_sides("embed_positions")]

    @property
    def tied_names(self) -> dict[str, str]:
        """See :attr:`ModelAdapter.tied_names`; both sides share their table whatever is configured."""
        return dict.fromkeys(self._of_both_sides("embed_tokens"), TABLE)

    @property
    def float_names(self) -> dict[str, str]:
        """See :attr:`ModelAdapter.float_names`."""
        reason = "positions are added to the state that every layer adds to, and are few"
        return dict.fromkeys(self._of_both_sides("embed_positions"), reason)

    @property
    def layer_names(self) -> list[str]:
        """See :attr:`ModelAdapter.layer_names`."""
        return [
            *("model.encoder.embed_tokens", *self._blocks("encoder")),
            *("model.decoder.embed_tokens", *self._blocks("decoder")),
        ]

    @property
    def stacks(self) -> tuple[LayerStack, ...]:
        """See :attr:`ModelAdapter.stacks`."""
        return tuple(self._stack(side) for side in _SIDES)

    @property
    def max_positions(self) -> int:
        """See :attr:`ModelAdapter.max_positions`; it holds for the encoder input and for the target."""
        return int(self.config.max_position_embeddings)

    def _stack(self, side: str) -> LayerStack:
        heads = getattr(self.config, f"{side}_attention_heads")
        own = AttentionTap("self", "self_attn.q_proj", "self_attn.k_proj", heads, causal=side == "decoder")
        read = AttentionTap("cross", "encoder_attn.q_proj", "encoder_attn.k_proj", heads)
        return LayerStack(
            name=side,
            blocks=f"model.{side}.layers",
            depth=getattr(self.config, f"{side}_layers"),
            depth_field=f"{side}_layers",
            width=self.config.d_model,
            embedding=f"model.{side}.layernorm_embedding",
            attentions=(own, read) if side == "decoder" else (own,),
            migrations=tuple(
                Migration(f"{part}.v_proj", (f"{part}.out_proj",))
                for part in (("self_attn", "encoder_attn") if side == "decoder" else ("self_attn",))
            ),
        )

    def _blocks(self, side: str) -> list[str]:
        return [f"model.{side}.layers.{index}" for index in range(getattr(self.config, f"{side}_layers"))]

    def _of_both_sides(self, part: str) -> list[str]:
        return [f"model.{side}.{part}" for side in _SIDES]


class BartAdapter(BartLayers, Seq2SeqAdapter):
    """``BartForConditionalGeneration``."""

    architectures: ClassVar[dict[str, Task]] = {"BartForConditionalGeneration": "seq2seq"}
    head_names: ClassVar[tuple[str, ...]] = (HEAD,)

    @property
    def cache(self) -> CacheShape:
        """See :attr:`Seq2SeqAdapter.cache`."""
        heads = self.config.decoder_attention_heads
        return CacheShape(self.config.decoder_layers, heads, self.config.d_model // heads)

    @property
    def tied_names(self) -> dict[str, str]:
        """See :attr:`ModelAdapter.tied_names`."""
        return super().tied_names | ({HEAD: TABLE} if self.config.tie_word_embeddings else {})

    @property
    def zero_buffers(self) -> list[str]:
        """See :attr:`ModelAdapter.zero_buffers`."""
        return ["final_logits_bias"]

    @property
    def input_names(self) -> list[str]:
        """Inputs of the whole model: the encoder input, its mask, and the target shifted by one."""
        return ["input_ids", "attention_mask", "decoder_input_ids"]

    def export_module(self, model: nn.Module, *, cache_dtype: torch.dtype = DEFAULT_CACHE_DTYPE) -> nn.Module:
        """Wraps the whole model; see :class:`BartWhole`."""
        return BartWhole(*self._encoder_and_first_step(model, cache_dtype))

    def export_parts(
        self, model: nn.Module, *, cache_dtype: torch.dtype = DEFAULT_CACHE_DTYPE
    ) -> list[ExportPart]:
        """See :meth:`Seq2SeqAdapter.export_parts`."""
        encoder, first = self._encoder_and_first_step(model, cache_dtype)
        following = BartNextStep(model, heads=self.cache.heads, layout=self.layout, cache_dtype=cache_dtype)
        own, read = (
            tuple(name for part in ("key", "value") for name in stored_names(f"{side}.{part}", cache_dtype))
            for side in ("decoder", "encoder")
        )
        return [
            ExportPart("encoder_model", encoder, ("input_ids", "attention_mask"), ("last_hidden_state",)),
            ExportPart(
                "decoder_model",
                first,
                ("encoder_attention_mask", "input_ids", "encoder_hidden_states"),
                ("logits", *self._cache_names("present", own + read)),
            ),
            ExportPart(
                "decoder_with_past_model",
                following,
                (
                    *("encoder_attention_mask", "input_ids"),
                    *self._cache_names("past_key_values", own + read),
                ),
                ("logits", *self._cache_names("present", own)),
            ),
        ]

    def _encoder_and_first_step(
        self, model: nn.Module, cache_dtype: torch.dtype
    ) -> tuple[BartEncoder, BartFirstStep]:
        encoder = BartEncoder(model, heads=self.config.encoder_attention_heads, layout=self.layout)
        return encoder, BartFirstStep(model, heads=self.cache.heads, layout=self.layout, cache_dtype=cache_dtype)

    def _cache_names(self, prefix: str, parts: Iterable[str]) -> list[str]:
        return [f"{prefix}.{index}.{part}" for index in range(self.cache.layers) for part in parts]


class BartClassifierAdapter(BartLayers):
    """``BartForSequenceClassification``: the decoder reads the text again; its state at the last end is labelled."""

    architectures: ClassVar[dict[str, Task]] = {"BartForSequenceClassification": "classify"}
    head_names: ClassVar[tuple[str, ...]] = ("classification_head.dense", "classification_head.out_proj")

    def check_config(self) -> None:
        """See :meth:`ModelAdapter.check_config`."""
        super().check_config()
        check_labels(self.config)
        for name in ("decoder_start_token_id", "eos_token_id"):
            check_token(self.config, name)

    @property
    def input_names(self) -> list[str]:
        """See :attr:`ModelAdapter.input_names`."""
        return ["input_ids", "attention_mask"]

    def export_module(self, model: nn.Module) -> nn.Module:
        """See :meth:`ModelAdapter.export_module`; see :class:`BartClassifier`."""
        config = self.config
        return BartClassifier(
            model,
            encoder_heads=config.encoder_attention_heads,
            decoder_heads=config.decoder_attention_heads,
            layout=self.layout,
            start=config.decoder_start_token_id,
            end=config.eos_token_id,
            longest=self.max_positions,
        )
