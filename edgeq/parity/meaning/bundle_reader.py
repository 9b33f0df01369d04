"""What a bundle makes of texts, asked as its users ask it: from Python, and by ``edgeq-run``."""

from __future__ import annotations

import dataclasses
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from edgeq.errors import UsageError
from edgeq.parity.meaning.library import Reading, Refusal
from edgeq.parity.meaning.samples import Sample
from edgeq.parity.rules.generated_texts import BundleText
from edgeq.targets.runtime.loader import Bundle

Named = tuple[tuple[str, ...] | None, np.ndarray]
"""Names, or None, and numbers of them."""
_PROGRAM = "edgeq-run"
_SECONDS = 120


def read_in_python(bundle: Bundle, sample: Sample) -> Reading | Refusal:
    """Returns what ``Bundle.encode`` or ``Bundle.predict`` makes of a sample."""
    try:
        (ids,) = bundle.tokenize([sample.text], prompt_name=sample.prompt_name)
        names, numbers = _ANSWERS[bundle.manifest.model.task](bundle, sample)
    except UsageError as error:
        return Refusal(str(error))
    return Reading(tuple(ids), None, names, numbers)


def _embedding(bundle: Bundle, sample: Sample) -> Named:
    return None, bundle.encode([sample.text], prompt_name=sample.prompt_name)[0].astype(np.float64)


def _scores(bundle: Bundle, sample: Sample) -> Named:
    (result,) = bundle.predict([sample.text], prompt_name=sample.prompt_name)
    if result.scores is None:
        raise UsageError(f"bundle {bundle.path} gave no scores")
    return _sorted(zip(result.scores.names, result.scores.values, strict=True))


def _sorted(scores: Any) -> Named:
    """Names and scores in an order that does not depend on the scores."""
    pairs = sorted(scores)
    return tuple(name for name, _ in pairs), np.array([value for _, value in pairs], np.float64)


_ANSWERS: dict[str, Callable[[Bundle, Sample], Named]] = {
    "embed": _embedding,
    "classify": _scores,
}


def prompt_in_c(bundle: Bundle, sample: Sample) -> Reading | Refusal:
    """Returns the tokens of a prompt, which ``edgeq-run`` reads with the library that Python calls too."""
    said = run_program(bundle.path, sample, "--tokens")
    if isinstance(said, Refusal):
        return said
    return Reading(tuple(said["ids"]), None, None, np.empty(0))


def run_program(bundle: Path, sample: Sample, *options: str) -> dict[str, Any] | Refusal:
    """Starts ``edgeq-run`` on a text and returns its line of JSON, or what it says against the text."""
    text = ["--text", str(sample.text)]
    command = [str(bundle / _PROGRAM), str(bundle), "--json", "--no-verify", "--threads", "1", *text, *options]
    done = subprocess.run(command, capture_output=True, check=False, timeout=_SECONDS, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        return Refusal(done.stderr.decode("utf-8", "replace").strip()[:300])
    table: dict[str, Any] = json.loads(done.stdout)
    return table


def generated_in_python(bundle: Bundle, sample: Sample, new_tokens: int | None) -> BundleText:
    """Lets a bundle generate as its settings say, without drawing by chance."""
    sampling = dataclasses.replace(bundle.generation.settings.sampling, temperature=0.0, top_k=0, top_p=1.0)
    if bundle.generation.source is not None:
        (made,) = bundle.rewrite([str(sample.text)], max_new_tokens=new_tokens, sampling=sampling)
        return BundleText(made.ids, made.generated, made.score, made.finish == "context")
    (continued,) = bundle.generate([str(sample.text)], max_new_tokens=new_tokens, sampling=sampling).results()
    return BundleText(continued.ids, continued.text, None, continued.finish == "context")


def generated_in_c(bundle: Bundle, sample: Sample, new_tokens: int | None) -> BundleText | Refusal:
    """The same by ``edgeq-run``."""
    count = "auto" if new_tokens is None else str(new_tokens)
    said = run_program(bundle.path, sample, "--generate", count, "--temperature", "0")
    if isinstance(said, Refusal):
        return said
    return BundleText(said["ids"], said["text"], said.get("score"), said["finish"] == "context")


def drawn_in_python(bundle: Bundle, sample: Sample, new_tokens: int | None) -> list[int]:
    """Returns tokens that a bundle draws by chance as its settings say."""
    if bundle.generation.source is not None:
        return bundle.rewrite([str(sample.text)], max_new_tokens=new_tokens)[0].ids
    return bundle.generate([str(sample.text)], max_new_tokens=new_tokens).results()[0].ids
