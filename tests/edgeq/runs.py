"""Made-up records of runs, for tests of what reads them."""

from pathlib import Path

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
