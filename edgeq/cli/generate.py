"""``generate``: a bundle generates text from prompts."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgeq.cli.console import note, print_json, write_texts
from edgeq.cli.run_options import MinNewTokens, NoRepeatNgramSize, Threads
from edgeq.cli.verb import Json, verb
from edgeq.errors import UsageError
from edgeq.sizes import counted

if TYPE_CHECKING:
    from edgeq.targets.runtime.generation import GeneratedText, Generation, Speed


def _sampling(text: str) -> Any:
    return typer.Option(help=text, rich_help_panel="Sampling")


@dataclasses.dataclass(frozen=True)
class SamplingOptions:
    """How a token is chosen; what is not given is as the bundle has it."""

    temperature: Annotated[
        float | None, _sampling("0 is greedy, 1 samples with the model's probabilities; less is sharper.")
    ] = None
    top_k: Annotated[int | None, _sampling("Sample from the K most likely tokens only; 0 is all.")] = None
    top_p: Annotated[
        float | None, _sampling("Sample from the most likely tokens whose probabilities add up to this only.")
    ] = None
    repetition_penalty: Annotated[
        float | None, _sampling("Penalty for tokens that the text already has; 1 is none.")
    ] = None
    seed: Annotated[int | None, _sampling("Seed of the random numbers.")] = None


_SHORTER_THAN_ASKED = {"context": "the context is full", "end": "the text ended", "stop": "a stop text was generated"}


@verb(
    "generate",
    example='generate ./run/bundles/host --prompt "The river rose" --max-new-tokens 40\n'
    "generate ./run/bundles/host --prompts-file prompts.txt -n 40 --temperature 0.8 --top-k 40 --seed 7 --json",
)
def generate(
    bundle: Annotated[Path, typer.Argument(help="Bundle of a decoder, for this machine.")],
    *,
    prompt: Annotated[list[str] | None, typer.Option("--prompt", "-p", help="A prompt; repeatable.")] = None,
    prompts_file: Annotated[
        Path | None,
        typer.Option(help="UTF-8 file with one prompt per line; - is standard input. Blank lines are skipped."),
    ] = None,
    max_new_tokens: Annotated[
        int | None, typer.Option("--max-new-tokens", "-n", help="Largest number of tokens to generate for a prompt.")
    ] = None,
    min_new_tokens: MinNewTokens = None,
    no_repeat_ngram_size: NoRepeatNgramSize = None,
    sampling: SamplingOptions,
    stop: Annotated[list[str] | None, typer.Option(help="Stop when this text was generated; repeatable.")] = None,
    ignore_end: Annotated[bool, typer.Option("--ignore-end", help="Do not stop at the end-of-text token.")] = False,
    batch: Annotated[int, typer.Option(min=1, help="Largest number of prompts generated together.")] = 8,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Generate text from prompts, printed token by token; the speed follows at the end.

    Settings that are not given come from the model's generation_config.json. Without it generation is greedy, and at
    most 100 tokens are generated.

    With --json, prints one object with text, ids and tokens_per_second (for several prompts a list of them in
    "results").
    """
    from edgeq.targets.runtime.loader import load
    from edgeq.targets.runtime.settings import changed_sampling
    from edgeq.targets.runtime.text_files import read_texts

    prompts = [*(prompt or []), *(read_texts(prompts_file) if prompts_file is not None else [])]
    if not prompts:
        raise UsageError("there is no prompt: give --prompt TEXT or --prompts-file FILE")
    loaded = load(bundle, threads=threads)
    generation = loaded.generate(
        prompts,
        max_new_tokens=max_new_tokens,
        min_new_tokens=min_new_tokens,
        no_repeat_ngram_size=no_repeat_ngram_size,
        sampling=changed_sampling(loaded.generation.settings, **vars(sampling)),
        stop=stop or [],
        ignore_end=ignore_end,
        batch=batch,
    )
    if as_json:
        print_json(_json(generation))
        return
    _print(generation, prompts)
    _note_end(generation.results(), generation.speed, asked=max_new_tokens, threads=loaded.threads)


def _print(generation: Generation, prompts: list[str]) -> None:
    if len(prompts) == 1:
        _stream(generation, prompts[0])
        return
    for result in generation.results():
        write_texts(result.prompt or "", result.text, "\n\n")


def _stream(generation: Generation, prompt: str) -> None:
    write_texts(prompt)
    for piece in generation:
        write_texts(piece.text)
    write_texts("\n")


def _json(generation: Generation) -> dict[str, Any]:
    results = [
        {
            "prompt": result.prompt,
            "text": result.text,
            "ids": result.ids,
            "finish": result.finish,
            "prompt_tokens": result.prompt_tokens,
        }
        for result in generation.results()
    ]
    speed = generation.speed
    rates = {"tokens_per_second": speed.tokens_per_second, "prompt_seconds": speed.prompt_seconds}
    return {**results[0], **rates} if len(results) == 1 else {"results": results, **rates}


def _note_end(results: list[GeneratedText], speed: Speed, *, asked: int | None, threads: int) -> None:
    made = sum(len(result.ids) for result in results)
    rate = "" if speed.tokens_per_second is None else f", {speed.tokens_per_second:.1f} tokens a second"
    note(
        f"{counted(made, 'token')}{rate} (after {counted(speed.prompt_tokens, 'token')} of prompt in "
        f"{speed.prompt_seconds:.3f} s; {counted(threads, 'thread')})"
    )
    for reason in sorted({r.finish for r in results if asked is not None and len(r.ids) < asked}):
        if reason in _SHORTER_THAN_ASKED:
            note(f"fewer tokens than asked for: {_SHORTER_THAN_ASKED[reason]}")
