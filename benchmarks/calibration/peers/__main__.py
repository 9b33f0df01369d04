"""Other tools' methods of quantization: MiniLM and GPT-2 after them, measured as ``benchmarks.calibration`` does.

    python -m benchmarks.calibration.peers --python .venv-peers/bin/python --minilm FOLDER --data DATA --work WORK
        --results FILE [--only NAME ...]

Tools run in an environment of their own, which ``python -m benchmarks.speed.peers .venv-peers`` makes. They get the
tokens of calibration texts out of the same files as edgeq's recipes, and are given the same tokens to be measured on.
What a tool cannot do is a row with its error. Converted and quantized models stay in WORK; a row that is in FILE
already, of the same threads, is not repeated.
"""

from __future__ import annotations

import argparse
import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.calibration.bench import CONTEXT, GPT2, GPT2_TOKENS, Bench
from benchmarks.calibration.quality import embed, perplexity_of, token_ids
from benchmarks.machine import facts
from edgeq.checkpoint import Checkpoint, load_checkpoint
from edgeq.files import write_text

SEED = 0
"""Of the calibration texts that are drawn."""
TEXTS = {"minilm": 512, "gpt2": 32}
"""Calibration texts: about as many tokens as error feedback reads."""
_NNCF = (
    "int8", "int8-activations", "int4-nearest", "int4-awq", "int4-gptq", "int4-128-nearest", "int4-128-scale",
    "int4-128-awq", "int4-128-gptq", "mixed-0.5",
)  # fmt: skip
_ONNX_RUNTIME = ("8-nearest", "4-nearest", "4-tables", "4-gptq")
_LLAMA = tuple(form + end for form in ("Q8_0", "Q4_0", "Q4_K_S", "Q2_K") for end in ("", "-imatrix"))
ROWS = tuple(
    f"{model}/{engine}/{variant}"
    for model, peers in (
        ("minilm", {"nncf": _NNCF, "onnxruntime": _ONNX_RUNTIME}),
        ("gpt2", {"nncf": _NNCF, "onnxruntime": _ONNX_RUNTIME, "llama": _LLAMA}),
    )
    for engine, variants in peers.items()
    for variant in variants
)


def main() -> int:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--python", type=Path, required=True, help="Python of the peers' environment")
    parser.add_argument("--minilm", type=Path, required=True, help="folder of all-MiniLM-L6-v2")
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets stsb and wikitext2")
    parser.add_argument("--work", type=Path, required=True, help="folder of the converted models")
    parser.add_argument("--results", type=Path, required=True, help="file to write")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", nargs="*", default=None, help="rows by name, such as minilm/nncf/int8")
    options = parser.parse_args()
    rows = json.loads(options.results.read_text())["rows"] if options.results.is_file() else []
    sources = {"minilm": options.minilm, "gpt2": GPT2}
    measured = _Measured(sources, options.data, options.work, options.python.absolute())
    for name in ROWS:
        done = any((row["name"], row["threads"]) == (name, options.threads) for row in rows)
        if done or (options.only is not None and name not in options.only):
            continue
        row = {"name": name, "threads": options.threads, "seed": SEED}
        row |= {**measured.row(name, options.threads), "machine": facts()}
        rows = [other for other in rows if other["name"] != name] + [row]
        write_text(options.results, json.dumps({"rows": rows}, indent=1) + "\n")
        print(json.dumps({key: value for key, value in row.items() if key != "machine"}), flush=True)
    return 0


class _Measured:
    """The models and data."""

    def __init__(self, sources: dict[str, Path], data: Path, work: Path, python: Path) -> None:
        self._sources, self._data, self._work, self._python = sources, data, work, python
        work.mkdir(parents=True, exist_ok=True)
        self._bench = Bench(work, sources, data, 1)
        self._checkpoints: dict[str, Checkpoint] = {}

    def row(self, name: str, threads: int) -> dict[str, Any]:
        """Quantizes and measures."""
        model, engine, variant = name.split("/")
        request = {
            "folder": str(self._prepared(model)), "variant": variant, "decoder": model == "gpt2", "threads": threads,
        }  # fmt: skip
        script = Path(__file__).with_name(f"{engine}_peer.py")
        with _process([str(self._python), str(script)], self._work / "peer.log") as ask:
            made = ask(request)
            if "missing" in made:
                return {"missing": made["missing"].replace(str(self._work.absolute()), "WORK")}
            return made | {"quality": self._quality(model, _Remote(ask, self._work))}

    def _quality(self, model: str, remote: _Remote) -> dict[str, float]:
        checkpoint = self._checkpoint(model)
        if model == "gpt2":
            text = self._data / "wikitext2" / "valid.txt"
            value = perplexity_of(remote, checkpoint.tokenizer, text, tokens=GPT2_TOKENS, context=CONTEXT)
            return {"perplexity": round(value, 3)}
        encoded = token_ids(checkpoint, self._bench.texts(model))
        vectors = embed(lambda ids, mask, _types: remote.run(ids, mask), encoded)
        return self._bench.quality_of_embeddings(model, vectors)

    def _checkpoint(self, model: str) -> Checkpoint:
        if model not in self._checkpoints:
            self._checkpoints[model] = load_checkpoint(self._sources[model])
        return self._checkpoints[model]

    def _prepared(self, model: str) -> Path:
        """Returns a folder with the checkpoint and the tokens of calibration texts."""
        folder = (self._work / model).absolute()
        folder.mkdir(exist_ok=True)
        link, source = folder / "float", self._sources[model].absolute()
        if link.resolve() != source.resolve():
            link.unlink(missing_ok=True)
            link.symlink_to(source)
        checkpoint = self._checkpoint(model)
        content = self._bench.calibration_texts(model).read_text(encoding="utf-8")
        draw = np.random.default_rng(SEED).permutation
        if model == "gpt2":
            stream = checkpoint.tokenizer(content, add_special_tokens=False, verbose=False)["input_ids"]
            starts = sorted(draw(len(stream) // CONTEXT)[: TEXTS[model]] * CONTEXT)
            texts = [stream[start : start + CONTEXT] for start in starts]
        else:
            lines = content.splitlines()
            texts = token_ids(checkpoint, [lines[place] for place in sorted(draw(len(lines))[: TEXTS[model]])])
        lengths = np.array([len(text) for text in texts])
        np.savez(folder / "calibration.npz", ids=np.concatenate(texts).astype(np.int64), lengths=lengths)
        return folder


class _Remote:
    """A peer's model, which gets its inputs and gives its outputs in files."""

    def __init__(self, ask: Any, folder: Path) -> None:
        self._ask, self._inputs, self._output = ask, folder / "inputs.npz", folder / "output.npy"

    def run(self, ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """Returns token states or logits: float32, ``[batch, length, ...]``."""
        np.savez(self._inputs, ids=ids, mask=mask)
        answer = self._ask({"inputs": str(self._inputs), "output": str(self._output)})
        if "missing" in answer:
            raise RuntimeError(answer["missing"])
        found: np.ndarray = np.load(self._output)
        return found

    def __call__(self, feed: dict[str, np.ndarray], /) -> dict[str, np.ndarray]:
        """Returns log-probabilities, as perplexity is measured by."""
        ids = feed["input_ids"]
        logits = self.run(ids[:, :-1], np.ones_like(ids[:, :-1])).astype(np.float64)
        logits -= logits.max(axis=2, keepdims=True)
        chosen = np.take_along_axis(logits, ids[:, 1:, None], axis=2)[:, :, 0]
        return {"log_probabilities": chosen - np.log(np.exp(logits).sum(axis=2))}


@contextmanager
def _process(command: list[str], log: Path) -> Iterator[Any]:
    """Yields a function that asks a process, and takes a process that ended for one that cannot do it."""
    with log.open("w") as errors:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True)

        def ask(request: dict[str, Any]) -> dict[str, Any]:
            if process.stdin is None or process.stdout is None:
                raise ValueError("the process has no pipes")
            try:
                process.stdin.write(json.dumps(request) + "\n")
                process.stdin.flush()
                answer = process.stdout.readline()
            except BrokenPipeError:
                answer = ""
            if answer:
                return dict(json.loads(answer))
            lines = log.read_text(encoding="utf-8").strip().splitlines() or ["nothing"]
            return {"missing": f"the process ended with status {process.wait()}: {lines[-1][:300]}"}

        try:
            yield ask
        finally:
            if process.stdin is not None:
                process.stdin.close()
            process.wait()


if __name__ == "__main__":
    raise SystemExit(main())
