"""ModernBERT: encoders with rotary positions, gated units, and attention to neighbours in two layers of three."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import nn

from edgeq.errors import UnsupportedError
from edgeq.models.activations import check_activation, exportable_activation
from edgeq.models.adapter import Task
from edgeq.models.bert import BertAdapter
from edgeq.models.cache import additive, attend, split_heads
from edgeq.models.heads import Head, PositionalEncoder
from edgeq.models.rotary import ROPE_KEYS, TURNED_BEHIND, Rotary, check_rotary
from edgeq.models.stacks import LayerStack
from edgeq.models.structure import with_modules_replaced
from edgeq.models.transformers_release import RELEASE

_SIZES = {
    "vocab_size": 1 << 31,
    "hidden_size": 1 << 20,
    "num_hidden_layers": 1000,
    "num_attention_heads": 1 << 20,
    "intermediate_size": 1 << 24,
    "max_position_embeddings": 1 << 24,
    "local_attention": 1 << 24,
}
_LOCAL, _GLOBAL = "sliding_attention", "full_attention"
"""Kinds of layers, as newer releases of transformers call them."""


class ModernBertAdapter(BertAdapter):
    """``ModernBertModel``, with and without a head."""

    family: ClassVar[str] = "modernbert"
    display_name: ClassVar[str] = "ModernBERT"
    body_name: ClassVar[str] = "model"
    architectures: ClassVar[dict[str, Task]] = {
        "ModernBertModel": "embed",
        "ModernBertForSequenceClassification": "classify",
        "ModernBertForTokenClassification": "tag",
        "ModernBertForQuestionAnswering": "answer",
        "ModernBertForMaskedLM": "fill",
    }
    heads: ClassVar[dict[str, Head]] = {
        "embed": Head(),
        **dict.fromkeys(("classify", "tag", "answer"), Head(("head.dense", "classifier"))),
        "fill": Head(("head.dense", "decoder"), tied="decoder"),
    }
    largest_sizes: ClassVar[dict[str, int]] = _SIZES
    understood: ClassVar[frozenset[str]] = ROPE_KEYS | frozenset(
        {*_SIZES, "hidden_activation", "norm_eps", "tie_word_embeddings", "layer_types"}
        | {"global_rope_theta", "local_rope_theta", "global_attn_every_n_layers"}
        | {"norm_bias", "attention_bias", "mlp_bias", "classifier_bias", "decoder_bias"}  # which are stored
        | {"classifier_pooling", "classifier_activation"}
        # of training, of how attention is computed, and of nobody
        | {"initializer_cutoff_factor", "embedding_dropout", "mlp_dropout", "repad_logits_with_grad"}
        | {"deterministic_flash_attn", "reference_compile", "sparse_prediction", "sparse_pred_ignore_index"}
        | {"layer_norm_eps"}
    )
    without_effect: ClassVar[dict[str, object]] = {"position_embedding_type": "absolute"}
    least_opset: ClassVar[int] = 23
    untrained_because: ClassVar[str] = TURNED_BEHIND
    linears_of_a_block: ClassVar[tuple[str, ...]] = ("attn.Wqkv", "attn.Wo", "mlp.Wi", "mlp.Wo")
    blocks: ClassVar[str] = "layers"
    activation_field: ClassVar[str] = "hidden_activation"
    epsilon_field: ClassVar[str] = "norm_eps"

    def check_config(self) -> None:
        """See :meth:`ModelAdapter.check_config`."""
        super().check_config()
        config = self.config
        columns = config.hidden_size // config.num_attention_heads
        check_rotary(config, family=self.display_name, columns=columns)
        if unknown := set(self.layer_kinds) - {_LOCAL, _GLOBAL}:
            raise UnsupportedError(
                f"ModernBERT with layers of type {', '.join(sorted(map(repr, unknown)))} (layer_types in config.json) "
                f"is not supported, only {_LOCAL!r} and {_GLOBAL!r}"
            )
        if self.task != "embed":
            check_activation(config, "classifier_activation", family=self.display_name)

    @property
    def layer_kinds(self) -> list[str]:
        """What each layer attends to: its neighbours, or all tokens."""
        kinds = getattr(self.config, "layer_types", None)
        if kinds is not None:
            return [str(kind) for kind in kinds]
        every = self.config.global_attn_every_n_layers
        return [_LOCAL if index % every else _GLOBAL for index in range(self.config.num_hidden_layers)]

    @property
    def optional_modules(self) -> list[str]:
        """None: there is no pooler."""
        return []

    @property
    def tied_names(self) -> dict[str, str]:
        """See :attr:`ModelAdapter.tied_names`."""
        return self.head.tied_names(self.embedding_names[0], self.config)

    @property
    def embedding_names(self) -> list[str]:
        """See :attr:`ModelAdapter.embedding_names`."""
        return [f"{self._prefix}embeddings.tok_embeddings"]

    @property
    def stacks(self) -> tuple[LayerStack, ...]:
        """None: what attention sees is made behind the modules that distillation would read."""
        return ()

    @property
    def input_names(self) -> list[str]:
        """See :attr:`ModelAdapter.input_names`."""
        return ["input_ids", "attention_mask"]

    def export_module(self, model: nn.Module) -> nn.Module:
        """See :meth:`ModelAdapter.export_module`."""
        return _PositionalModernBert(
            with_modules_replaced(model, exportable_activation),
            task=self.task,
            body=self.body_name,
            config=self.config,
            kinds=self.layer_kinds,
        )


class _PositionalModernBert(PositionalEncoder):
    """ModernBERT, written out.

    Args:
        model: A float or compressed model.
        task: What it is for.
        body: Name of the body within the model.
        config: Its configuration.
        kinds: Kind of each layer.
    """

    places: torch.Tensor

    def __init__(self, model: Any, *, task: str, body: str, config: Any, kinds: list[str]) -> None:
        super().__init__(model, task=task, body=body)
        self.kinds = kinds
        self.heads: int = config.num_attention_heads
        self.reach: int = config.local_attention // 2
        self.takes_mean = config.classifier_pooling == "mean"
        longest = config.max_position_embeddings
        layers = model if task == "embed" else getattr(model, body)
        angles = {kind: _rotary(layers, kind, kinds, longest=longest) for kind in sorted(set(kinds))}
        self.rotary = nn.ModuleDict(angles)
        self.register_buffer("places", torch.arange(longest), persistent=False)

    def text_logits(self, states: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """See :meth:`PositionalEncoder.text_logits`."""
        if self.takes_mean:
            weights, count = attention_mask.to(states.dtype), attention_mask.sum(dim=1, keepdim=True)
            return self.token_logits((weights[:, None, :] @ states)[:, 0] / count.to(states.dtype))
        return self.token_logits(states[:, 0])

    def token_logits(self, states: torch.Tensor) -> torch.Tensor:
        """See :meth:`PositionalEncoder.token_logits`."""
        logits: torch.Tensor = self.model.classifier(self.model.head(states))
        return logits

    def span_logits(self, states: torch.Tensor) -> torch.Tensor:
        """See :meth:`PositionalEncoder.span_logits`."""
        return self.token_logits(states)

    def word_logits(self, states: torch.Tensor) -> torch.Tensor:
        """See :meth:`PositionalEncoder.word_logits`."""
        logits: torch.Tensor = self.model.decoder(self.model.head(states))
        return logits

    def states(
        self, body: Any, input_ids: torch.Tensor, attention_mask: torch.Tensor, token_type_ids: torch.Tensor | None
    ) -> torch.Tensor:
        """See :meth:`PositionalEncoder.states`; there are no token types."""
        del token_type_ids
        state = body.embeddings.norm(body.embeddings.tok_embeddings(input_ids))
        places = self.places[: input_ids.shape[1]]
        positions = places[None, :].expand_as(input_ids)
        masks = self._masks(attention_mask, places)
        for kind, layer in zip(self.kinds, body.layers, strict=True):
            read = state if isinstance(layer.attn_norm, nn.Identity) else layer.attn_norm(state)
            query, key, value = layer.attn.Wqkv(read).chunk(3, dim=-1)
            query, key = (self.rotary[kind](part, positions, heads=self.heads) for part in (query, key))
            query, key, value = (split_heads(part, self.heads) for part in (query, key, value))
            state = state + layer.attn.Wo(attend(query, key, value, masks[kind]))
            entry, gate = layer.mlp.Wi(layer.mlp_norm(state)).chunk(2, dim=-1)
            state = state + layer.mlp.Wo(layer.mlp.act(entry) * gate)
        normed: torch.Tensor = body.final_norm(state)
        return normed

    def _masks(self, attention_mask: torch.Tensor, places: torch.Tensor) -> dict[str, torch.Tensor]:
        """What is added to the scores of each kind of layer."""
        tokens = attention_mask.bool()[:, None, None, :]
        distances = places[None, :] - places[:, None]
        near = (distances <= self.reach) & (distances >= -self.reach)
        return {_GLOBAL: additive(tokens), _LOCAL: additive(tokens & near[None, None])}


def _rotary(body: Any, kind: str, kinds: list[str], *, longest: int) -> Rotary:
    """Returns the angles of one kind of layer, which transformers keeps in the layers, or from release 5 on once."""
    if RELEASE < 5:
        return Rotary.of(body.layers[kinds.index(kind)].attn.rotary_emb, positions=longest)
    module = body.rotary_emb
    frequencies, scaling = (getattr(module, f"{kind}_{part}") for part in ("inv_freq", "attention_scaling"))
    return Rotary(frequencies, positions=longest, scaling=float(scaling))
