"""Sentence embeddings as part of the model: pooling and the modules of sentence-transformers behind it, in torch.

Everything that is a sum over tokens is written as one matmul of weights ``[batch, 1, sequence]`` and states
``[batch, sequence, width]``: a mean, a first and a last token differ in their weights only, and padding has none.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional

from edgeq.errors import FormatError
from edgeq.formats.sentence_model import Dense, LayerNorm, Normalize, SentenceModel

EMBEDDING = "sentence_embedding"
"""Name of the output."""
POOLING_MASK = "pooling_mask"
"""Name of an input of models that leave the prompt out of the pooling: 0 for tokens of the prompt."""
_WEIGHTS, _OLD_WEIGHTS = "model.safetensors", "pytorch_model.bin"
_SMALLEST_NORM = 1e-12
_SMALLEST_COUNT = 1e-9
_ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "gelu": functional.gelu,
    "identity": lambda x: x,
    "relu": torch.relu,
    "tanh": torch.tanh,
}


class SentenceHead(nn.Module):
    """From token states to a sentence embedding.

    Args:
        sentence: What the folder says.
        width: Width of a token's state.

    Raises:
        FormatError: If a width does not fit the one before it, or weights are missing, damaged or not finite.
    """

    def __init__(self, sentence: SentenceModel, *, width: int) -> None:
        super().__init__()
        if sentence.pooling is None:
            raise ValueError("a cross-encoder has no embedding")
        self.pooling = sentence.pooling
        self.dimensions = sentence.dimensions
        self.reads_pooling_mask = not sentence.pooling.include_prompt and any(sentence.prompts.values())
        if sentence.pooling.width not in (None, width):
            wanted = sentence.pooling.width
            raise FormatError(f"{sentence.folder}: pooling is for states of width {wanted}, the model's have {width}")
        self.steps = nn.ModuleList()
        width *= len(sentence.pooling.modes)
        for step in sentence.steps:
            module = _module(step, width)
            width = step.outputs if isinstance(step, Dense) else width
            self.steps.append(module)
        if self.dimensions is not None and self.dimensions > width:
            self.dimensions = None
        self.width = self.dimensions or width

    def forward(self, states: torch.Tensor, attention_mask: torch.Tensor, kept: torch.Tensor | None) -> torch.Tensor:
        """Returns the embeddings.

        Args:
            states: float32, ``[batch, sequence, width]``.
            attention_mask: int64, ``[batch, sequence]``, 1 for a token and 0 for padding.
            kept: int64, ``[batch, sequence]``, 0 for tokens that the pooling leaves out; None keeps all.

        Returns:
            float32, ``[batch, width]``.
        """
        mask = attention_mask if kept is None else attention_mask * kept
        vector = torch.cat([_pooled(mode, states, mask, attention_mask) for mode in self.pooling.modes], dim=-1)
        for step in self.steps:
            vector = step(vector)
        return vector if self.dimensions is None else vector[:, : self.dimensions]


class WithSentenceEmbedding(nn.Module):
    """An encoder with a second output.

    Args:
        encoder: Takes ids, mask and possibly token types by position, and returns the token states.
        head: From states to embeddings.
    """

    def __init__(self, encoder: nn.Module, head: SentenceHead) -> None:
        super().__init__()
        self.encoder = encoder
        self.sentence = head

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        third: torch.Tensor | None = None,
        fourth: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns the states, float32 ``[batch, sequence, width]``, and the embeddings, float32 ``[batch, width]``.

        The inputs after the mask are those that the model has: token types, and the pooling's own mask as the last.
        """
        further = [value for value in (third, fourth) if value is not None]
        kept = further.pop() if self.sentence.reads_pooling_mask else None
        states = self.encoder(input_ids, attention_mask, *further)
        return states, self.sentence(states, attention_mask, kept)


def _pooled(mode: str, states: torch.Tensor, mask: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
    """One way of pooling; ``mask`` is ``attention_mask`` without the tokens that are left out."""
    if mode == "max":
        lowest = torch.finfo(states.dtype).min
        return torch.where(mask[:, :, None] > 0, states, lowest).amax(dim=1)
    if mode in ("cls", "lasttoken"):
        before = mask.cumsum(dim=1)  # tokens up to each place
        place = before == (1 if mode == "cls" else mask.sum(dim=1, keepdim=True))
        return _weighted(states, (place & (mask > 0)).to(states.dtype))
    weights = mask
    if mode == "weightedmean":
        # Places count from the first token of the text, prompt included.
        weights = mask * (attention_mask.cumsum(dim=1) > 0).to(torch.int64).cumsum(dim=1)
    # Whole numbers are added as integers, so that no order of a sum shows.
    count = weights.sum(dim=1, keepdim=True).to(states.dtype).clamp(min=_SMALLEST_COUNT)
    if mode == "mean_sqrt_len_tokens":
        count = torch.sqrt(count)
    return _weighted(states, weights.to(states.dtype)) / count


def _weighted(states: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    return torch.matmul(weights[:, None, :], states).squeeze(1)


class _DenseModule(nn.Module):
    """See :class:`~edgeq.formats.sentence_model.Dense`."""

    def __init__(self, step: Dense) -> None:
        super().__init__()
        self.linear = nn.Linear(step.inputs, step.outputs, bias=step.bias)
        self.activation = _ACTIVATIONS[step.activation]
        self.adds_input = step.residual
        self.residual: nn.Linear | None = None
        if step.residual and step.inputs != step.outputs:
            self.residual = nn.Linear(step.inputs, step.outputs, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns float32 ``[batch, outputs]``."""
        out = self.activation(self.linear(x))
        if self.adds_input:
            out = out + (x if self.residual is None else self.residual(x))
        return out


class _NormModule(nn.Module):
    """See :class:`~edgeq.formats.sentence_model.LayerNorm`."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns float32 ``[batch, width]``."""
        result: torch.Tensor = self.norm(x)
        return result


class _UnitLength(nn.Module):
    """See :class:`~edgeq.formats.sentence_model.Normalize`."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns float32 ``[batch, width]``."""
        return x / torch.linalg.vector_norm(x, dim=-1, keepdim=True).clamp(min=_SMALLEST_NORM)


def _module(step: Dense | LayerNorm | Normalize, width: int) -> nn.Module:
    if isinstance(step, Normalize):
        return _UnitLength()
    wanted = step.inputs if isinstance(step, Dense) else step.width
    if wanted != width:
        raise FormatError(f"{step.folder} is for vectors of {wanted} numbers, the module before it makes {width}")
    module = _DenseModule(step) if isinstance(step, Dense) else _NormModule(step.width)
    _load(module, step.folder)
    return module.eval().requires_grad_(False)


def _load(module: nn.Module, folder: Path) -> None:
    """Fills a module with the weights of its folder, which must be these and no others."""
    tensors = read_module_weights(folder)
    wanted = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if wanted != found:
        raise FormatError(f"{folder}: its config.json asks for tensors {wanted}, its weights are {found}")
    for name, tensor in tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            raise FormatError(f"{folder}: tensor {name!r} holds NaN or infinity; the checkpoint is damaged")
    module.load_state_dict(tensors)


def copy_module_weights(sentence: SentenceModel, out: Path) -> None:
    """Writes the weights of the modules behind the pooling into another folder, as safetensors.

    Args:
        sentence: The modules.
        out: Folder that holds theirs, each under the name that it has in ``sentence.folder``.
    """
    for step in sentence.steps:
        if isinstance(step, Dense | LayerNorm):
            save_file(read_module_weights(step.folder), out / step.folder.relative_to(sentence.folder) / _WEIGHTS)


def read_module_weights(folder: Path) -> dict[str, torch.Tensor]:
    """Reads the weights of a module behind the pooling, float32 by name.

    Raises:
        FormatError: If there are none, or they cannot be read.
    """
    path = next((folder / name for name in (_WEIGHTS, _OLD_WEIGHTS) if (folder / name).is_file()), None)
    if path is None:
        raise FormatError(f"{folder} holds neither {_WEIGHTS} nor {_OLD_WEIGHTS}")
    try:
        tensors = load_file(path) if path.name == _WEIGHTS else torch.load(path, map_location="cpu", weights_only=True)
        return {str(name): tensor.to(torch.float32) for name, tensor in tensors.items()}
    except Exception as error:  # both readers raise types of their own
        raise FormatError(f"{path} is damaged: {' '.join(str(error).split())[:200]}") from error

