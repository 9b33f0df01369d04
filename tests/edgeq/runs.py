"""Runs for tests: made-up records, what a proof said, and graphs that a test damages."""

from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from edgeq.export.external_data import ModelWriter
from edgeq.results import About, RecipeOfRun, RunRecord, Taken, TargetOfRun


def about(*, name="model", recipe="ptq-w8a8", targets=("host",), source=Path("model"), **more):
    """What a run says that it is of."""
    return About(
        name=name,
        source=str(source),
        source_folder=str(source),
        recipe=RecipeOfRun(recipe, "8 bits", "ab" * 32),
        targets={target: TargetOfRun("a processor", "portable", "generic") for target in targets},
        taken=(Taken("pooling", "the mean of the tokens", "1_Pooling/config.json"),),
        **more,
    )


def write_record(folder, **more):
    """Writes the ``deploy.json`` of a run without finished stages."""
    RunRecord(about(**more), {}).write(folder / "deploy.json")


def verdicts(report):
    """Which rules held, by stage and rule."""
    return {(check.stage, check.rule): check.passed for check in report.checks}


def edit_graphs(run, change):
    """Loads the graphs of a run, lets ``change`` edit them by name, and writes them back."""
    models = {path.stem: onnx.load(path) for path in (run / "onnx").glob("*.onnx")}
    change(models)
    with ModelWriter(run / "onnx") as writer:
        for name, model in models.items():
            for tensor in model.graph.initializer:
                tensor.data_location = onnx.TensorProto.DEFAULT
                del tensor.external_data[:]
            writer.write(name, model)


def change_tensor(model, name, change):
    """Replaces a tensor of a graph by what ``change`` makes of it, in its own type."""
    tensor = next(one for one in model.graph.initializer if one.name == name)
    before = numpy_helper.to_array(tensor)
    tensor.CopyFrom(numpy_helper.from_array(np.asarray(change(before)).astype(before.dtype), name))


MEANING_OF_GENERATED_TEXTS = {
    (stage, "meaning")
    for stage in (
        "torch float32, answers",
        "tvm host, edgeq-run, tokens",
        "tvm host, Python, generated texts",
        "tvm host, edgeq-run, generated texts",
    )
}
"""What rule ``meaning`` checks of a bundle that generates text greedily."""
