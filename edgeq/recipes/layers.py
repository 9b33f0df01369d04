"""Layer reduction: a student made of some of its teacher's blocks (XTC, step 1)."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from edgeq.errors import UnsupportedError, UsageError
from edgeq.models import ModelAdapter, adapter_for
from edgeq.recipes.training_sections import LayersSection


def kept_layers(section: LayersSection | None, adapter: ModelAdapter) -> dict[str, tuple[int, ...]]:
    """Resolves the blocks that a student keeps of each stack of its teacher.

    Args:
        section: What the recipe says; None keeps all.
        adapter: The teacher's.

    Returns:
        For each stack, by name, the teacher's block of each of the student's, counted from 0.

    Raises:
        UnsupportedError: If the family has no stacks of layers.
        UsageError: If a block is not there, or the recipe keeps blocks of a decoder that the model does not have.
    """
    if not adapter.stacks:
        raise UnsupportedError(
            f"{adapter.architecture} {adapter.untrained_because}, so that its layers cannot be trained to be like "
            "those of another model; use a recipe that does not train (ptq-...)"
        )
    stacks = {stack.name: stack.depth for stack in adapter.stacks}
    keep: dict[str, tuple[int, ...]] = {name: tuple(range(depth)) for name, depth in stacks.items()}
    if section is None:
        return keep
    if not isinstance(section.keep, tuple):
        halves = {name: indices[section.keep == "odd" :: 2] for name, indices in keep.items()}
        if not all(halves.values()):
            raise UsageError(f"the recipe keeps {section.keep} layers, of which {adapter.architecture} has none")
        return halves
    wanted = {next(iter(stacks)): section.keep}
    if section.keep_decoder is not None:
        if len(stacks) < 2:
            raise UsageError(
                f"layers.keep_decoder is for encoder-decoders, and {adapter.architecture} is none; use layers.keep"
            )
        wanted["decoder"] = section.keep_decoder
    for name, indices in wanted.items():
        if indices[-1] >= stacks[name]:
            raise UsageError(
                f"the recipe keeps layer {indices[-1]} of the {name}, but {adapter.architecture} has "
                f"{stacks[name]}, counted from 0; change layers.keep"
            )
        keep[name] = indices
    return keep


def reduce_layers(model: Any, adapter: ModelAdapter, keep: Mapping[str, Sequence[int]]) -> tuple[Any, ModelAdapter]:
    """Makes a smaller model out of some blocks of ``model``, embeddings and heads included, all copied.

    Args:
        model: A float ``transformers`` model; it stays as it is.
        adapter: Its adapter.
        keep: What :func:`kept_layers` returned.

    Returns:
        The student, in the mode of ``model``, and its adapter.
    """
    config = copy.deepcopy(model.config)
    for stack in adapter.stacks:
        setattr(config, stack.depth_field, len(keep[stack.name]))
    if isinstance(kinds := getattr(config, "layer_types", None), list):
        config.layer_types = [kinds[index] for index in keep[adapter.stacks[0].name]]
    if config.is_encoder_decoder:
        config.num_hidden_layers = len(keep["encoder"])  # a second field of BART's for the encoder's depth
    student: nn.Module = type(model)(config, **adapter.model_options)
    state = {
        new_name: tensor
        for name, tensor in model.state_dict().items()
        if (new_name := _new_name(name, adapter, keep)) is not None
    }
    student.load_state_dict(state)
    student.train(model.training)
    return student, adapter_for(student)


def _new_name(name: str, adapter: ModelAdapter, keep: Mapping[str, Sequence[int]]) -> str | None:
    """Renumbers the block in a tensor's name; None for a block that is not kept."""
    for stack in adapter.stacks:
        if found := re.match(rf"{re.escape(stack.blocks)}\.(\d+)\.", name):
            index = int(found.group(1))
            if index not in keep[stack.name]:
                return None
            return f"{stack.block(keep[stack.name].index(index))}.{name[found.end() :]}"
    return name
