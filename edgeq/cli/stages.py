"""``compress``, ``export`` and ``compile``: the stages that write a folder each."""

from __future__ import annotations

import collections
from pathlib import Path
from typing import Annotated, Any

import typer

from edgeq.cli import training_options as training
from edgeq.cli.console import note, print_json, progress_bars, say
from edgeq.cli.verb import Force, Json, verb
from edgeq.errors import UsageError

Out = Annotated[
    Path, typer.Argument(help="Folder to write; only an earlier output of this verb is replaced, and only on success.")
]
Source = Annotated[str, typer.Argument(help="Folder of a Hugging Face checkpoint, or a hub name.")]
RecipeName = Annotated[
    str, typer.Option("--recipe", "-r", help="Built-in recipe (see 'edgeq recipes') or a .toml file.")
]
Task = Annotated[
    str | None,
    typer.Option(
        help="What to make of the model: feature-extraction, text-classification, text-generation or "
        "text2text-generation. Default: what it was made for, and the encoder of one that was only pre-trained."
    ),
]
Opset = Annotated[int | None, typer.Option(help="ONNX opset, 18 to 23; the exporter's default if not given.")]
Cache = Annotated[
    str, typer.Option(help="Type of the key/value cache of models that make text: float16 or float32.")
]
Context = Annotated[
    int | None,
    typer.Option(help="For models that make text: most tokens, prompt included. Default: all positions."),
]


@verb(
    "compress",
    example="compress ./my-bert ./my-bert-w8 --recipe ptq-w8a8\n"
    "compress ./my-bert ./my-bert-w2 --recipe calibrated-w2e4a8 --calibration-data texts.txt\n"
    "compress ./my-bert ./my-bert-w1 --recipe xtc-l6-w1a8 --train-data train.tsv --eval-data dev.tsv --budget A",
)
def compress(
    source: Source,
    out: Out,
    *,
    recipe: RecipeName,
    task: Task = None,
    calibration_data: training.CalibrationData = None,
    train_data: training.TrainData = None,
    eval_data: training.EvalData = None,
    teacher: training.Teacher = None,
    epochs: training.Epochs = None,
    budget: training.Budget = None,
    seed: training.Seed = None,
    resume: training.Resume = False,
    start_from: training.StartFrom = None,
    pretrain_data: training.PretrainData = None,
    augment_model: training.AugmentModel = None,
    training_folder: training.TrainingFolder = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Compress a checkpoint: packed low-bit weights in a Hugging Face folder.

    A recipe that trains can be interrupted: the same command with --resume goes on to the same result.
    """
    from edgeq.compress import compress_model, training_result
    from edgeq.ledger import ledger, summary_line

    request = training.request(
        train_data=train_data,
        eval_data=eval_data,
        teacher=teacher,
        epochs=epochs,
        budget=budget,
        seed=seed,
        resume=resume,
        start_from=start_from,
        pretrain_data=pretrain_data,
        augment_model=augment_model,
        folder=training_folder,
    )
    with progress_bars() as progress:
        result = compress_model(
            source,
            out,
            recipe=recipe,
            task=task,
            training=request,
            calibration_data=calibration_data,
            force=force,
            progress=progress,
            remark=note,
        )
    book = ledger(out)
    trained = None if request is None else training_result(out, request)
    if as_json:
        layers = [{"name": layer.name, "kind": layer.kind, "bits": layer.bits} for layer in result.layers]
        values = {"out": str(out), "layers": layers, "totals": book.to_json()["totals"]}
        print_json(values | ({} if trained is None else {"training": trained}))
        return
    if trained is not None:
        figures = ", ".join(f"{name} {value:.4g}" for name, value in trained["values"].items())
        say(f"trained for {trained['steps']} steps{': ' if figures else ''}{figures}")
    kinds = collections.Counter((row.kind, row.nominal_bits) for row in book.rows if row.is_low_bit)
    for (kind, bits), count in sorted(kinds.items()):
        say(f"{count:4} {kind} matrices at {bits} bits")
    say(summary_line(book))
    say(str(out))


@verb("export", example="export ./my-bert-w8 ./my-bert-onnx\nexport ./my-bert-w8 ./my-bert-stock --flavour stock")
def export(
    checkpoint: Annotated[Path, typer.Argument(help="Compressed (or plain) checkpoint folder.")],
    out: Out,
    *,
    task: Task = None,
    opset: Opset = None,
    cache: Cache = "float16",
    flavour: Annotated[
        str,
        typer.Option(
            help="edgeq: ai.edgeq ops with bodies. stock: ONNX Runtime's own packed ops, fast without a library "
            "(release 1.23 or later; 2-bit weights 1.28), activations rounded in blocks."
        ),
    ] = "edgeq",
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Export a checkpoint to ONNX: ai.edgeq ops, each with a body in standard ops, or ops of ONNX Runtime itself."""
    from edgeq.export.exporter import export_onnx

    _existing_folder(checkpoint, "checkpoint")
    with progress_bars() as progress:
        options: dict[str, Any] = {"force": force, "task": task} | ({} if opset is None else {"opset": opset})
        remarks: list[str] = []
        file = export_onnx(
            checkpoint, out, cache=cache, flavour=flavour, progress=progress, remark=remarks.append, **options
        )
    if as_json:
        print_json({"out": str(out), "model": str(file), "files": _sizes(out), "evaluation": remarks})
    else:
        for line in remarks:
            say(line)
        say(str(file))


@verb(
    "compile",
    example="compile ./my-bert-onnx ./bundle --target host\ncompile ./my-bert-onnx ./pi5 --target cortex-a76",
)
def compile_(
    onnx_folder: Annotated[Path, typer.Argument(metavar="ONNX", help="Folder that 'edgeq export' wrote.")],
    out: Out,
    *,
    target: Annotated[
        str, typer.Option("--target", "-t", help="Target (see 'edgeq targets') or a .toml file.")
    ] = "host",
    context: Context = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Compile an exported model into a bundle for one processor."""
    from edgeq.targets.builtin.target import load_target
    from edgeq.targets.bundle.writer import compile_bundle

    _existing_folder(onnx_folder, "ONNX")
    chosen = load_target(target)
    with progress_bars() as progress:
        compile_bundle(onnx_folder, out, target=chosen, context=context, force=force, progress=progress)
    if as_json:
        print_json({"out": str(out), "target": chosen.name, "files": _sizes(out)})
        return
    if (out / "edgeq-run").is_file():
        note(f"copy {out} to the board and run: {out.name}/edgeq-run {out.name} --self-test")
    say(str(out))


def _existing_folder(path: Path, what: str) -> None:
    if not path.is_dir():
        raise UsageError(
            f"{path} is not a folder; give the {what} folder that the stage before this one wrote"
        )


def _sizes(folder: Path) -> dict[str, int]:
    return {
        str(file.relative_to(folder)): file.stat().st_size
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }
