"""``compress``: a checkpoint and a recipe in, a compressed checkpoint out."""

from __future__ import annotations

import collections

from edgeq.cli.console import note, print_json, progress_bars, say
from edgeq.cli.folders import Out, RecipeName, Source, Task
from edgeq.cli.training_options import CalibrationData, EvalData, TrainingFolder, TrainingOptions
from edgeq.cli.verb import Force, Json, verb


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
    calibration_data: CalibrationData = None,
    training: TrainingOptions,
    eval_data: EvalData = None,
    training_folder: TrainingFolder = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Compress a checkpoint: packed low-bit weights in a Hugging Face folder.

    A recipe that trains can be interrupted: the same command with --resume goes on to the same result.
    """
    from edgeq.compress import compress_model, training_outcome
    from edgeq.ledger import ledger, summary_line

    request = training.request(eval_data=eval_data, folder=training_folder)
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
    trained = None if request is None else training_outcome(out, request)
    if as_json:
        layers = [{"name": layer.name, "kind": layer.kind, "bits": layer.bits} for layer in result.layers]
        values = {"out": str(out), "layers": layers, "totals": book.to_json()["totals"]}
        more = {} if trained is None else {"training": trained.result.to_json() | {"folder": str(trained.folder)}}
        print_json(values | more)
        return
    if trained is not None:
        figures = ", ".join(f"{name} {value:.4g}" for name, value in trained.result.values.items() if value is not None)
        say(f"trained for {trained.result.steps} steps{': ' if figures else ''}{figures}")
    kinds = collections.Counter((row.kind, row.nominal_bits) for row in book.rows if row.is_low_bit)
    for (kind, bits), count in sorted(kinds.items()):
        say(f"{count:4} {kind} matrices at {bits} bits")
    say(summary_line(book))
    say(str(out))
