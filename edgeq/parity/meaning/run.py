"""Rule ``meaning`` on a run: which library answers for which task, and which texts both are given."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from edgeq.checkpoint import Checkpoint, load_checkpoint
from edgeq.formats.json_file import read_json_object
from edgeq.formats.sentence_model import SentenceModel, read_sentence_model
from edgeq.memory import give_back
from edgeq.models.transformers_release import is_misread
from edgeq.parity.meaning.bundle_reader import (
    drawn_in_python,
    generated_in_c,
    generated_in_python,
    prompt_in_c,
    read_in_c,
    read_in_python,
)
from edgeq.parity.meaning.generation import Generator
from edgeq.parity.meaning.library import Library, NotCheckedError, Reading, Refusal
from edgeq.parity.meaning.pipelines import (
    FillMask,
    MeanOfFeatures,
    QuestionAnswering,
    TextClassification,
    TokenClassification,
)
from edgeq.parity.meaning.samples import PAIRS, QUESTIONS, TEXTS, Sample, masked, prompted, too_long
from edgeq.parity.meaning.sentence_encoder import EMBEDDER, SCORER
from edgeq.parity.meaning.sentences import SentenceTransformers, is_available
from edgeq.parity.reference import noise_in, quantized_values_of_a_token
from edgeq.parity.rules.generated_texts import BundleText, check_drawn, check_generated
from edgeq.parity.rules.meaning import Answer, check_answers, check_tokens
from edgeq.quiet import quiet_transformers
from edgeq.results import Check
from edgeq.targets.runtime.loader import Bundle
from edgeq.targets.runtime.manifest import read_manifest

_FLOAT_STAGE = "torch float32"
_PROMPTS = 4
"""Texts that a model generates from; each is generated several times."""
_ROOM = 8
"""Tokens that the context must hold behind a prompt."""


@dataclasses.dataclass(frozen=True)
class NativeBundle:
    """A bundle that this machine runs: the name of its stage, its folder, and what loads it."""

    stage: str
    folder: Path
    load: Callable[[], Bundle]


@dataclasses.dataclass(frozen=True)
class MeaningRun:
    """What the rule is applied to.

    Attributes:
        source: Folder of the float model.
        sentence: What sentence-transformers keeps in it.
        compressed: The compressed checkpoint.
        bundles: At least one.
        task: What was made of the float model, if the run was told.
        is_finite: Whether this process has looked at every weight of the float model before.
    """

    source: Path
    sentence: SentenceModel
    compressed: Checkpoint
    bundles: Sequence[NativeBundle]
    task: str | None
    is_finite: bool

    @property
    def vocabulary(self) -> int:
        """Tokens that the compressed model has rows for."""
        return int(self.compressed.adapter.config.vocab_size)

    @property
    def longest(self) -> int | None:
        """Most tokens that the library or the model reads."""
        checkpoint = self.compressed
        # Sentence-transformers puts its limit in the place of the tokenizer's.
        own = self.sentence.max_tokens or checkpoint.tokenizer.model_max_length
        limits: list[Any] = [own, checkpoint.adapter.max_positions]
        return int(min(limit for limit in limits if limit is not None))


@dataclasses.dataclass(frozen=True)
class Found:
    """What came of it.

    Attributes:
        checks: One for each stage and part of the rule.
        library: Which library answered, or an empty text.
        not_checked: Why nothing was checked, or an empty text.
    """

    checks: tuple[Check, ...] = ()
    library: str = ""
    not_checked: str = ""


def check_meaning(
    source: Path | None,
    compressed: Checkpoint,
    bundles: Sequence[NativeBundle],
    *,
    task: str | None,
    is_finite: bool = False,
) -> Found:
    """Compares bundles, and what edgeq reads as the float model, with the library that people use the model with.

    Args:
        source: Folder of the float model; None if it is not known, or gone.
        compressed: The compressed checkpoint.
        bundles: Those that run on this machine.
        task: What was made of the float model, if the run was told.
        is_finite: Whether this process has looked at every weight of the float model before.
    """
    kind = TASKS.get(compressed.adapter.task)
    if kind is None:
        return Found(not_checked=f"models for {compressed.adapter.task!r} have no library to compare with yet")
    if source is None:
        return Found(not_checked="the float model of this run is not known, or gone")
    if not bundles:
        return Found(not_checked="this machine runs no bundle of the run")
    run = MeaningRun(source, read_sentence_model(source), compressed, bundles, task, is_finite)
    place = run.sentence.transformer
    config, tokenizer = (_settings(place / name) for name in ("config.json", "tokenizer_config.json"))
    if is_misread(config, tokenizer):
        return Found(not_checked="the folder is of release 5 of transformers, which the installed release misreads")
    if config.get("vocab_size") not in (None, run.vocabulary):
        return Found(not_checked="the recipe left tokens out of the vocabulary: the float model reads other tokens")
    library: Library | None = None
    try:
        with quiet_transformers():
            library = kind.library(run)
            return Found(tuple(kind.checks(run, library, kind.samples(run))), library.name)
    except NotCheckedError as error:
        return Found(not_checked=str(error))
    finally:
        if library is not None:
            library.close()


def _settings(path: Path) -> dict[str, Any]:
    return read_json_object(path) if path.is_file() else {}


def _answers(run: MeaningRun, library: Library, samples: Sequence[Sample]) -> list[Check]:
    """Checks models that answer each text with numbers."""
    inside = _Inside(library, samples)
    samples = refusable(samples, inside.own, longest=run.longest)
    checks = [inside.check_float_model(run)]
    want = inside.use(run.compressed)
    for bundle in run.bundles:
        loaded = bundle.load()
        for how, read in (("Python", read_in_python), ("edgeq-run", read_in_c)):
            stage, got = f"{bundle.stage}, {how}", [read(loaded, sample) for sample in samples]
            checks += [check_tokens(stage, samples, inside.own, got), inside.check(stage, want, got)]
    return checks


def refusable(samples: Sequence[Sample], own: Sequence[Answer], *, longest: int | None) -> Sequence[Sample]:
    """Lets bundles refuse texts that are too long: a library whose positions are computed reads on beyond the last one.

    Args:
        samples: The texts.
        own: What the library made of them.
        longest: Most tokens that the model is said to read.
    """
    return [
        dataclasses.replace(sample, may_refuse=True)
        if longest is not None and isinstance(answer, Reading) and len(answer.ids) > longest
        else sample
        for sample, answer in zip(samples, own, strict=True)
    ]


def _generated(run: MeaningRun, library: Any, samples: Sequence[Sample]) -> list[Check]:
    """Checks models that generate text."""
    inside = _Inside(library, samples)
    checks = [inside.check_float_model(run)]
    inside.use(run.compressed)

    def noise(seed: int) -> Any:
        return noise_in(run.compressed.model, seed)

    for bundle in run.bundles:
        loaded = bundle.load()
        generation = loaded.generation
        room = generation.context - 1 if generation.source is None else generation.source.context
        pairs = zip(samples, inside.own, strict=True)
        kept = [sample for sample, own in pairs if isinstance(own, Reading) and len(own.ids) <= room]
        if not kept:
            raise NotCheckedError(f"{bundle.stage} has a context of {generation.context} tokens, too few for a text")
        counts = [library.new_tokens(sample, context=generation.context) for sample in kept]
        read = [prompt_in_c(loaded, sample) for sample in samples]
        checks.append(check_tokens(f"{bundle.stage}, edgeq-run", samples, inside.own, read))
        for how, generate in (("Python", generated_in_python), ("edgeq-run", generated_in_c)):
            made = [generate(loaded, sample, count) for sample, count in zip(kept, counts, strict=True)]
            checks.append(_check_generated(f"{bundle.stage}, {how}", library, kept, made, counts, noise))
        if library.draws:
            drawn = drawn_in_python(loaded, kept[0], counts[0])
            sampling = loaded.generation.settings.sampling
            filters = {name: float(getattr(sampling, name)) for name in library.filters}
            stage = f"{bundle.stage}, Python"
            checks.append(check_drawn(stage, library, kept[0], drawn, filters=filters, noise=noise))
    return checks


def _check_generated(
    stage: str,
    library: Generator,
    samples: Sequence[Sample],
    got: Sequence[BundleText | Refusal],
    counts: Sequence[int | None],
    noise: Any,
) -> Check:
    for sample, found in zip(samples, got, strict=True):
        if isinstance(found, Refusal):
            return Check(f"{stage}, generated texts", "meaning", False, f"{sample.what}: refused ({found.why})", {})
    made = [found for found in got if isinstance(found, BundleText)]
    return check_generated(stage, library, samples, made, new_tokens=counts, noise=noise)


class _Inside:
    """The library on some texts, with its own weights and with those of other models inside.

    Raises:
        NotCheckedError: If the library fails on a text that every model should read.
    """

    def __init__(self, library: Library, samples: Sequence[Sample]) -> None:
        self._library, self._samples = library, samples
        self.own: list[Answer] = [library.read(sample) for sample in samples]
        self._model: Any = None
        self._clean: list[Answer] = []
        for sample, answer in zip(samples, self.own, strict=True):
            if isinstance(answer, Refusal) and not sample.may_refuse:
                raise NotCheckedError(f"{library.name} fails on {sample.what} ({answer.why})")

    def use(self, checkpoint: Checkpoint) -> list[Answer]:
        """Lets another model compute, and returns what the library now says of the texts that it can read."""
        self._model = checkpoint.model
        self._library.use(checkpoint.model)
        give_back()  # the model before it
        pairs = zip(self._samples, self.own, strict=True)
        self._clean = [one if isinstance(one, Refusal) else self._library.read(sample) for sample, one in pairs]
        return self._clean

    def check_float_model(self, run: MeaningRun) -> Check:
        """Whether the float model that edgeq reads from the folder is the one that the library reads."""
        self._library.let_go()
        own = run.compressed.tokenizer
        got = self.use(load_checkpoint(run.source, task=run.task, tokenizer=own, is_finite=run.is_finite))
        return self.check(_FLOAT_STAGE, self.own, got)

    def check(self, stage: str, want: Sequence[Answer], got: Sequence[Answer]) -> Check:
        """Compares with what the library says while the model inside computes under noise."""

        def under_noise(seed: int, number: int) -> Answer:
            with noise_in(self._model, seed):
                return self._library.read(self._samples[number])

        values = quantized_values_of_a_token(self._model)
        return check_answers(
            stage, self._samples, want, got, clean=self._clean, under_noise=under_noise, values_of_a_token=values
        )


def _embedder(run: MeaningRun) -> Library:
    if run.sentence.is_described or is_available():
        return SentenceTransformers(run.source, EMBEDDER)
    return MeanOfFeatures(run.source)


def _classifier(run: MeaningRun) -> Library:
    return SentenceTransformers(run.source, SCORER) if _scores_pairs(run.sentence) else TextClassification(run.source)


def _generator(run: MeaningRun) -> Library:
    with_encoder = run.compressed.adapter.task == "seq2seq"
    state = read_manifest(run.bundles[0].folder).functions["main"].state
    return Generator(run.source, with_encoder=with_encoder, cache_dtype=getattr(torch, state[0].dtype))


def _scores_pairs(sentence: SentenceModel) -> bool:
    """Tells whether the folder is a cross-encoder, which sentence-transformers calls with pairs."""
    config = read_json_object(sentence.transformer / "config.json")
    is_marked = any(key in config for key in ("sbert_ce_default_activation_function", "sentence_transformers"))
    return sentence.is_cross_encoder or (is_marked and len(config.get("id2label", ())) == 1)


def _texts(run: MeaningRun) -> Sequence[Sample]:
    return (*TEXTS, *prompted(list(run.sentence.prompts)), *too_long(run.compressed.tokenizer, run.longest))


def _texts_and_pairs(run: MeaningRun) -> Sequence[Sample]:
    if _scores_pairs(run.sentence):
        return PAIRS
    return (*TEXTS, *PAIRS, *too_long(run.compressed.tokenizer, run.longest))


def _prompts(run: MeaningRun) -> Sequence[Sample]:
    """Texts that leave room for new tokens; at least the first words of one."""
    tokenizer, room = run.compressed.tokenizer, (run.longest or 1 << 30) - _ROOM
    short = (Sample("a few words", "The river"), Sample("two sentences", "A dog ran. Then"), *TEXTS[1:])
    fitting = [one for one in short if one.text and len(tokenizer(one.text)["input_ids"]) <= room]
    return fitting[:_PROMPTS]


@dataclasses.dataclass(frozen=True)
class Task:
    """How the meaning of one task is checked.

    Attributes:
        library: Opens the library that people use such a model with.
        samples: Returns the texts.
        checks: Compares.
    """

    library: Callable[[MeaningRun], Library]
    samples: Callable[[MeaningRun], Sequence[Sample]]
    checks: Callable[[MeaningRun, Any, Sequence[Sample]], list[Check]]


TASKS: dict[str, Task] = {
    "embed": Task(_embedder, _texts, _answers),
    "classify": Task(_classifier, _texts_and_pairs, _answers),
    "tag": Task(lambda run: TokenClassification(run.source), _texts, _answers),
    "answer": Task(lambda run: QuestionAnswering(run.source), lambda _: QUESTIONS, _answers),
    "fill": Task(lambda run: FillMask(run.source), lambda run: masked(run.compressed.tokenizer.mask_token), _answers),
    "generate": Task(_generator, _prompts, _generated),
    "seq2seq": Task(_generator, _prompts, _generated),
}
"""What is asked of the models of each task."""
