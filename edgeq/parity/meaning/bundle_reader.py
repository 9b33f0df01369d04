"""What a bundle makes of texts, asked as its users ask it: from Python, and by ``edgeq-run``."""

from __future__ import annotations

import dataclasses
import json
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from edgeq.errors import UsageError
from edgeq.parity.meaning.library import Reading, Refusal
from edgeq.parity.meaning.pipelines import FILLED, STRATEGIES, Named, named_answer, named_spans, named_tokens
from edgeq.parity.meaning.samples import Sample
from edgeq.parity.rules.generated_texts import BundleText
from edgeq.targets.runtime.loader import Bundle

_PROGRAM = "edgeq-run"
_SECONDS = 120


def read_in_python(bundle: Bundle, sample: Sample) -> Reading | Refusal:
    """Returns what the methods of ``Bundle`` make of a sample."""
    try:
        (ids,) = bundle.tokenize([sample.text], prompt_name=sample.prompt_name)
        names, numbers = _IN_PYTHON[bundle.manifest.model.task](bundle, sample)
    except UsageError as error:
        return Refusal(str(error))
    return Reading(tuple(ids), None, names, numbers)


def read_in_c(bundle: Bundle, sample: Sample) -> Reading | Refusal:
    """Returns what ``edgeq-run`` makes of a sample."""
    try:
        ids = tuple(_run(bundle.path, sample, "--tokens")["ids"])
        names, numbers = _IN_C[bundle.manifest.model.task](bundle.path, sample)
    except UsageError as error:
        return Refusal(str(error))
    return Reading(ids, None, names, numbers)


def prompt_in_c(bundle: Bundle, sample: Sample) -> Reading | Refusal:
    """Returns the tokens of a prompt as ``edgeq-run`` reads them."""
    try:
        return Reading(tuple(_run(bundle.path, sample, "--tokens")["ids"]), None, None, np.empty(0))
    except UsageError as error:
        return Refusal(str(error))


def generated_in_python(bundle: Bundle, sample: Sample, new_tokens: int | None) -> BundleText | Refusal:
    """Lets a bundle generate as its settings say, without drawing by chance."""
    sampling = dataclasses.replace(bundle.generation.settings.sampling, temperature=0.0, top_k=0, top_p=1.0)
    try:
        if bundle.generation.source is not None:
            (made,) = bundle.rewrite([str(sample.text)], max_new_tokens=new_tokens, sampling=sampling)
            return BundleText(made.ids, made.generated, made.score, made.finish == "context")
        (continued,) = bundle.generate([str(sample.text)], max_new_tokens=new_tokens, sampling=sampling).results()
    except UsageError as error:
        return Refusal(str(error))
    return BundleText(continued.ids, continued.text, None, continued.finish == "context")


def generated_in_c(bundle: Bundle, sample: Sample, new_tokens: int | None) -> BundleText | Refusal:
    """The same by ``edgeq-run``."""
    count = "auto" if new_tokens is None else str(new_tokens)
    try:
        said = _run(bundle.path, sample, "--generate", count, "--temperature", "0")
    except UsageError as error:
        return Refusal(str(error))
    return BundleText(said["ids"], said["text"], said.get("score"), said["finish"] == "context")


def drawn_in_python(bundle: Bundle, sample: Sample, new_tokens: int | None) -> list[int]:
    """Returns tokens that a bundle draws by chance as its settings say."""
    if bundle.generation.source is not None:
        return bundle.rewrite([str(sample.text)], max_new_tokens=new_tokens)[0].ids
    return bundle.generate([str(sample.text)], max_new_tokens=new_tokens).results()[0].ids


def _run(bundle: Path, sample: Sample, *options: str) -> dict[str, Any]:
    """Starts ``edgeq-run`` on a text and returns its line of JSON.

    Raises:
        UsageError: If it refuses the text; the message is what it says.
    """
    text = _text_options(sample)
    prompt = [] if sample.prompt_name is None else ["--prompt-name", sample.prompt_name]
    command = [str(bundle / _PROGRAM), str(bundle), "--json", "--no-verify", "--threads", "1"]
    done = subprocess.run(
        [*command, *text, *prompt, *options], capture_output=True, check=False, timeout=_SECONDS,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    if done.returncode != 0:
        raise UsageError(done.stderr.decode("utf-8", "replace").strip()[:300])
    table: dict[str, Any] = json.loads(done.stdout)
    return table


def _text_options(sample: Sample) -> list[str]:
    if isinstance(sample.text, str):
        return ["--text", sample.text]
    first, second = sample.text
    return ["--question", first, "--context", second] if sample.is_question else ["--pair", first, second]


def _sorted(scores: Iterable[tuple[str, float]]) -> Named:
    """Names and scores in an order that does not depend on the scores."""
    pairs = sorted(scores)
    return tuple(name for name, _ in pairs), np.array([value for _, value in pairs], np.float64)


def _embedding(bundle: Bundle, sample: Sample) -> Named:
    return None, bundle.encode([sample.text], prompt_name=sample.prompt_name)[0].astype(np.float64)


def _scores(bundle: Bundle, sample: Sample) -> Named:
    (result,) = bundle.predict([sample.text], prompt_name=sample.prompt_name)
    if result.scores is None:
        raise UsageError(f"bundle {bundle.path} gave no scores")
    return _sorted(zip(result.scores.names, result.scores.values, strict=True))


def _spans(bundle: Bundle, sample: Sample) -> Named:
    found = [bundle.tag([str(sample.text)], aggregation=how)[0].entities for how in STRATEGIES]
    return named_spans([[entity.to_json() for entity in entities] for entities in found])


def _answer(bundle: Bundle, sample: Sample) -> Named:
    (result,) = bundle.answer([(sample.text[0], sample.text[1])])
    return named_answer(result.answers[0].to_json())


def _fillings(bundle: Bundle, sample: Sample) -> Named:
    (result,) = bundle.fill([str(sample.text)], top_k=FILLED)
    return named_tokens([filling.to_json() for filling in result.masks[0]])


def _embedding_in_c(bundle: Path, sample: Sample) -> Named:
    return None, np.array(_run(bundle, sample)["embedding"], np.float64)


def _scores_in_c(bundle: Path, sample: Sample) -> Named:
    scores = _run(bundle, sample)["scores"]
    pairs = scores.items() if isinstance(scores, dict) else ((entry["label"], entry["score"]) for entry in scores)
    return _sorted(pairs)


def _spans_in_c(bundle: Path, sample: Sample) -> Named:
    return named_spans([_run(bundle, sample, "--aggregation", how)["entities"] for how in STRATEGIES])


def _answer_in_c(bundle: Path, sample: Sample) -> Named:
    return named_answer(_run(bundle, sample)["answers"][0])


def _fillings_in_c(bundle: Path, sample: Sample) -> Named:
    return named_tokens(_run(bundle, sample, "--top-k", str(FILLED))["fillings"])


_IN_PYTHON: dict[str, Callable[[Bundle, Sample], Named]] = {
    "embed": _embedding,
    "classify": _scores,
    "tag": _spans,
    "answer": _answer,
    "fill": _fillings,
}
_IN_C: dict[str, Callable[[Path, Sample], Named]] = {
    "embed": _embedding_in_c,
    "classify": _scores_in_c,
    "tag": _spans_in_c,
    "answer": _answer_in_c,
    "fill": _fillings_in_c,
}
