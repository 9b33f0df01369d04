"""How many choices of tokens are clear in the zoo's models, and whether every backend takes the clear ones.

Texts are taken as ``edgeq parity`` takes them: 128 tokens, written beyond the end of the text, of sources cut to 3,
10, 17 and 31 tokens. For the BART they are also taken as it is used: whole sources, up to the end of what it writes.
Run from the repository's root; a folder that is there is gone on with:

    python -m benchmarks.zoo.clear_steps --data DATA --work FOLDER --results benchmarks/zoo/clear_steps.json
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer

import edgeq
from benchmarks.zoo.bart_infill_scitldr import END, MASK, MASKED_SHARE, encode, infilling_pairs, read_abstracts
from benchmarks.zoo.corpus import read_articles
from benchmarks.zoo.infilling import infill
from edgeq.checkpoint import Checkpoint, load_checkpoint
from edgeq.files import write_text
from edgeq.parity.inputs.decoder import NEW_TOKENS
from edgeq.parity.inputs.encoder_decoder import EncoderDecoderText, generate_greedily, torch_parts
from edgeq.parity.inputs.sentences import SENTENCES
from edgeq.parity.kinds.base import ComparedRun
from edgeq.parity.kinds.decoder import DecoderParity
from edgeq.parity.kinds.encoder_decoder import EncoderDecoderParity
from edgeq.parity.kinds.text_generation import TextGenerationParity
from edgeq.progress import silent
from edgeq.targets.builtin.target import load_target
from edgeq.targets.bundle.model_info import read_target_tokens
from edgeq.targets.runtime.loader import load

ZOO = Path(__file__).resolve().parents[2] / "models" / "zoo"
RECIPE = "ptq-w8a8"
TEXTS_TOGETHER = 4
PASSAGE = 100  # tokens of a passage whose words are to be guessed


def prepare(name: str, folder: Path) -> None:
    """Compresses, exports and compiles a model of the zoo for this machine, unless that is done."""
    if (folder / "bundles" / "host" / "manifest.json").is_file():
        return
    edgeq.compress_model(ZOO / name, folder / "checkpoint", recipe=RECIPE)
    edgeq.export_onnx(folder / "checkpoint", folder / "onnx")
    edgeq.compile_bundle(folder / "onnx", folder / "bundles" / "host", target=load_target("host"))


def cut_texts(data: Path, count: int, tokenizer: Tokenizer) -> dict[str, list[str]]:
    """Returns ``count`` texts of each kind, of which only the beginnings are read."""
    articles = read_articles(data / "wikitext2" / "test.txt")
    lines = [line for article in articles for line in article.splitlines() if len(line) > 4 * PASSAGE]
    masked, random = [], np.random.default_rng(0)
    for line in lines[count : 2 * count]:
        ids = np.array(tokenizer.encode(line, add_special_tokens=False).ids[:PASSAGE])
        noisy = infill(ids, random, mask=MASK, share=MASKED_SHARE)
        masked.append(tokenizer.decode(noisy.tolist(), skip_special_tokens=False))
    abstracts = [abstract.source for abstract in read_abstracts(data / "scitldr" / "test.jsonl")]
    return {
        "sentences of edgeq parity": list(SENTENCES[:count]),
        "WikiText-2 test": lines[:count],
        "SciTLDR test, abstracts": abstracts[:count],
        "WikiText-2 test, masked": masked,
    }


def whole_sources(data: Path, count: int, tokenizer: Tokenizer) -> dict[str, list[np.ndarray]]:
    """Returns ``count`` sources of each kind as the model was trained to read them."""
    abstracts = read_abstracts(data / "scitldr" / "test.jsonl")[:count]
    articles = read_articles(data / "wikitext2" / "test.txt")
    ids = [tokenizer.encode(article, add_special_tokens=False).ids[PASSAGE:][:PASSAGE] for article in articles]
    blocks = np.array([block for block in ids if len(block) == PASSAGE][:count])
    return {
        "abstracts, whole": [encode(tokenizer, abstract.source) for abstract in abstracts],
        "masked passages, whole": [noisy for noisy, _ in infilling_pairs(blocks, np.random.default_rng(0))],
    }


def written_to_the_end(folder: Path, checkpoint: Checkpoint, sources: Iterable[np.ndarray]) -> list[EncoderDecoderText]:
    """Lets the reference write of each source until it ends its text, or 128 tokens."""
    adapter: Any = checkpoint.adapter
    parts = torch_parts(checkpoint.model, adapter, cache_dtype=torch.float16)
    texts = []
    for source in sources:
        text = generate_greedily(parts, [source], tokens=read_target_tokens(folder / "onnx"), new=NEW_TOKENS)
        ends = np.flatnonzero(text.generated[0] == END)
        texts.append(text.beginning(int(ends[0]) + 1 if ends.size else NEW_TOKENS))
    return texts


def judged(parity: TextGenerationParity, folder: Path) -> dict[str, Any]:
    """Counts the clear steps of what a run of parity was given, and those that a backend takes differently."""
    parity.measure_reference()
    parity.compare("onnxruntime", parity.run_onnx_runtime(folder / "onnx"))
    bundle = load(folder / "bundles" / "host", threads=1)
    parity.compare("tvm", [text.in_bundle(bundle) for text in parity.texts])
    found = {check.stage: check.measured for check in parity.checks if check.rule == "task"}
    return {
        **{key: found["tvm"][key] for key in ("steps", "clear")},
        "broken": [check.stage for check in parity.checks if not check.passed],
        "changed": {stage: measured["changed"] for stage, measured in found.items()},
        "unclear_changed": {stage: measured["unclear_changed"] for stage, measured in found.items()},
    }


def summed(kind: str, parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Joins the results of several groups of texts."""
    steps, clear = (sum(part[key] for part in parts) for key in ("steps", "clear"))
    per_stage = {
        key: {stage: sum(part[key][stage] for part in parts) for stage in parts[0][key]}
        for key in ("changed", "unclear_changed")
    }
    broken = sorted({stage for part in parts for stage in part["broken"]})
    return {"texts": kind, "steps": steps, "clear": clear, "share": clear / steps, "broken": broken, **per_stage}


def measure(name: str, folder: Path, *, data: Path, texts: int) -> Iterator[dict[str, Any]]:
    """Measures one model of the zoo, and yields the result of each kind of texts.

    Args:
        name: Its name.
        folder: Where it is compressed and compiled.
        data: Folder with the data sets' folders.
        texts: Texts of each kind.
    """
    prepare(name, folder)
    checkpoint = load_checkpoint(folder / "checkpoint")
    tokenizer = Tokenizer.from_file(str(folder / "checkpoint" / "tokenizer.json"))
    is_bart = checkpoint.adapter.task == "seq2seq"
    kind_of_run = EncoderDecoderParity if is_bart else DecoderParity
    for kind, given in cut_texts(data, texts, tokenizer).items():
        groups = [given[start : start + TEXTS_TOGETHER] for start in range(0, len(given), TEXTS_TOGETHER)]
        if "masked" in kind and not is_bart:
            continue
        runs = (kind_of_run(ComparedRun(folder, checkpoint, {}, group), silent) for group in groups)
        yield summed(kind, [judged(run, folder) for run in runs])
    for kind, sources in (whole_sources(data, texts, tokenizer) if is_bart else {}).items():
        whole = EncoderDecoderParity(ComparedRun(folder, checkpoint, {}, []), silent)
        whole.texts = written_to_the_end(folder, checkpoint, sources)
        yield summed(kind, [judged(whole, folder)])


def main() -> None:
    """Measures both models and writes the results, those that are there after each kind of texts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with wikitext2/ and scitldr/")
    parser.add_argument("--work", type=Path, required=True, help="folder for compressed and compiled models")
    parser.add_argument("--results", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--texts", type=int, default=16, help="texts of each kind (default 16)")
    given = parser.parse_args()
    torch.set_num_threads(1)
    results: dict[str, list[dict[str, Any]]] = {}
    for name in ("bart-infill-scitldr", "gpt2-wikitext2"):
        results[name] = []
        for row in measure(name, given.work / name, data=given.data, texts=given.texts):
            results[name].append(row)
            print(name, json.dumps(row), flush=True)
            record = {"recipe": RECIPE, "texts_of_each_kind": given.texts, "models": results}
            write_text(given.results, json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
