"""The float model in each shape that a search may give it: its layers, what each costs, and what is stored besides."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgeq.checkpoint import Checkpoint, load_checkpoint
from edgeq.compress import trained_pooling
from edgeq.distill import FeatureReader, Wanted
from edgeq.errors import FormatError, UsageError
from edgeq.evaluate.data import TextFile
from edgeq.evaluate.perplexity import same_tokens
from edgeq.files import write_json, write_text
from edgeq.formats.json_file import read_json_object
from edgeq.models import ModelAdapter
from edgeq.progress import Progress
from edgeq.quant.plan import LayerPlan
from edgeq.recipes import Recipe, calibration_texts, load_recipe, plan_layers
from edgeq.recipes.apply import factorise_model
from edgeq.recipes.calibration import UnlabelledTexts
from edgeq.recipes.layers import kept_layers, reduce_layers
from edgeq.search.recipe_text import base_text
from edgeq.search.report import Choice, MethodSet, SearchLayer, Structure
from edgeq.search.rounding import TOKENS, FeedbackRounding, nearest
from edgeq.search.sensitivity import fixed_bytes, measure_sensitivity, narrowest_bytes
from edgeq.search.space import Space
from edgeq.vocabulary import prune_vocabulary

_TOKENS = 1024
"""Tokens of calibration texts that sensitivities are measured on."""


@dataclasses.dataclass(frozen=True)
class Shaped:
    """A structure with all that its widths are chosen by.

    Attributes:
        fixed: Bytes of all that the search does not change.
        least: Bytes with every layer at its narrowest.
        layers: Its layers; empty where only bytes were asked for.
    """

    fixed: int
    least: int
    layers: tuple[SearchLayer, ...] = ()


class Structures:
    """The structures of one search; what was found out is kept in its folder.

    Args:
        source: The float checkpoint.
        folder: Folder of the search.
        space: The choices.
        calibration_data: Texts without labels; None for those that come with edgeq.
        seed: Order of the texts.
        text: The text that perplexities are measured on, for models that generate text.
    """

    def __init__(
        self,
        source: Path,
        folder: Path,
        space: Space,
        *,
        calibration_data: Path | None,
        seed: int,
        text: TextFile | None,
    ) -> None:
        self._source, self._folder, self._space = source, folder, space
        self._data, self._seed, self._text = calibration_data, seed, text
        self._sizes: dict[Structure, Shaped] = {}

    def size(self, structure: Structure) -> Shaped:
        """Returns the bytes of a structure; no sensitivity is measured.

        Raises:
            UsageError: If the evaluation text needs tokens that pruning leaves out.
        """
        if structure not in self._sizes:
            _, model, _, plans = self._made(structure)
            fixed = fixed_bytes(model, plans)
            self._sizes[structure] = Shaped(fixed, fixed + narrowest_bytes(model, plans))
        return self._sizes[structure]

    def measured(self, structure: Structure, rounding: MethodSet, *, progress: Progress) -> Shaped:
        """Returns a structure with the sensitivities of its layers, which are measured once.

        Args:
            structure: The shapes.
            rounding: ``nearest`` or ``error-feedback``.
            progress: Told how many layers are done.
        """
        file = self._folder / "structures" / f"{structure.label}-{rounding}.json"
        if file.is_file():
            return _read(file)
        checkpoint, model, adapter, plans = self._made(structure)
        texts = calibration_texts(self._recipe(structure), adapter, tokenizer=checkpoint.tokenizer, data=self._data)
        layers = measure_sensitivity(
            model,
            adapter,
            plans,
            batches=list(texts.batches(_TOKENS, seed=self._seed, most=_TOKENS)),
            pooling=trained_pooling(checkpoint),
            round_to=nearest if rounding == "nearest" else self._feedback_rounding(model, adapter, plans, texts),
            progress=progress,
        )
        fixed = fixed_bytes(model, plans)
        shaped = Shaped(fixed, fixed + narrowest_bytes(model, plans), tuple(layers))
        write_json(file, dataclasses.asdict(shaped))
        return shaped

    def _feedback_rounding(
        self, model: Any, adapter: ModelAdapter, plans: Sequence[LayerPlan], texts: UnlabelledTexts
    ) -> FeedbackRounding:
        reader = FeatureReader(model.eval(), adapter, wanted=Wanted())
        # Texts in another order: errors are to be measured on texts that the rounding did not see.
        batches = list(texts.batches(_TOKENS, seed=self._seed + 1, most=TOKENS))
        blocks = [stack.block(index) for stack in adapter.stacks for index in range(stack.depth)]
        groups = [[plan.name for plan in plans if plan.name.startswith(f"{block}.")] for block in blocks]
        return FeedbackRounding(model, plans, groups=groups, run=lambda _model, batch: reader(batch), batches=batches)

    def _recipe(self, structure: Structure) -> Recipe:
        """Returns the recipe that all candidates of a structure share, for the plans of its layers."""
        file = self._folder / "structures" / f"{structure.label}.toml"
        write_text(file, base_text(f"base-{structure.label}", self._space.tables(structure)))
        return load_recipe(file)

    def _made(self, structure: Structure) -> tuple[Checkpoint, Any, ModelAdapter, Sequence[LayerPlan]]:
        checkpoint, recipe = load_checkpoint(self._source), self._recipe(structure)
        if recipe.vocabulary is not None:
            whole = checkpoint.tokenizer
            prune_vocabulary(checkpoint, recipe.vocabulary)
            if self._text is not None and not same_tokens(whole, checkpoint.tokenizer, self._text.content):
                raise UsageError(
                    f"--vocabulary {recipe.vocabulary.keep} leaves out tokens of {self._text.path}, so that "
                    "perplexities cannot be compared; add that text to the corpus"
                )
        model, adapter = checkpoint.model, checkpoint.adapter
        if recipe.layers is not None:
            model, adapter = reduce_layers(model, adapter, kept_layers(recipe.layers, adapter))
        names = factorise_model(model, recipe, adapter)
        return checkpoint, model, adapter, plan_layers(recipe, adapter, names)


def _read(file: Path) -> Shaped:
    values = read_json_object(file)
    try:
        layers = tuple(
            SearchLayer(one["name"], one["kind"], tuple(Choice(**choice) for choice in one["choices"]))
            for one in values["layers"]
        )
        return Shaped(int(values["fixed"]), int(values["least"]), layers)
    except (KeyError, TypeError, ValueError) as error:
        raise FormatError(f"{file} is damaged ({error!r}); search in a new folder") from error
