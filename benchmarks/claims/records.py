"""Records of finished runs: one small file each, kept in the repository, so that any machine goes on with the queue."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.claims.claim import Claim
from benchmarks.claims.measure import TEACHERS, teacher_name
from benchmarks.claims.rates import RATE_SETTINGS, STARTED
from edgeq.errors import FormatError
from edgeq.files import write_text
from edgeq.formats.json_file import read_json_object
from edgeq.recipes import load_recipe

BAG_OF_WORDS = "bag-of-words"
"""Beginning of the names of records of linear models on bags of words, the task's name being the end."""


def write_record(records: Path, result: Mapping[str, Any]) -> None:
    """Writes what came of a run as ``NAME.json``.

    Args:
        records: Folder of all records.
        result: What the run returned; its ``name`` is that of the file.
    """
    records.mkdir(parents=True, exist_ok=True)
    write_text(records / f"{result['name']}.json", json.dumps(result, indent=1) + "\n")


def read_records(records: Path, claims: Iterable[Claim]) -> dict[str, dict[str, Any]]:
    """Returns the records of these runs that are there, and those of teachers and of bags of words, by name.

    A record counts if it is of the same work: data, built-in recipe, changes, epochs, seed, a revision of the code that
    did the same, and a teacher whose record is there. Its learning rate is not looked at;
    :meth:`benchmarks.claims.table.Table.ready` does.

    Raises:
        FormatError: If a record is damaged.
    """
    others = [f"{name}-*.json" for name in (*TEACHERS.values(), BAG_OF_WORDS)]
    found = {file.stem: read_json_object(file) for one in others for file in sorted(records.glob(one))}
    for claim in claims:
        file = records / f"{claim.name}.json"
        if not file.is_file():
            continue
        record = read_json_object(file)
        try:
            counts = claim.task not in TEACHERS or teacher_name(record["teacher"], claim.task) in found
            counts &= claim.since <= record.get("revision", 1) <= claim.until
            # Keys that came later: a record without them is of a run to which they did not apply.
            for key in ("source", "pretraining", "start_from"):
                counts &= record.get(key, _DEFAULTS[key]) == getattr(claim, key)
            counts &= record["base_sha256"] == _sha256(claim.base)
            counts &= _work(record) == _work(dataclasses.asdict(claim))
        except (KeyError, TypeError, ValueError) as error:
            raise FormatError(f"{file} is not the record of a run ({error!r}); delete it to run it again") from error
        if counts:
            found[claim.name] = record
    return found


_DEFAULTS = {field.name: field.default for field in dataclasses.fields(Claim)}


@functools.cache
def _sha256(recipe: str) -> str:
    return load_recipe(recipe).sha256


def _work(run: Mapping[str, Any]) -> Any:
    changes = {key: dict(value) if isinstance(value, Mapping) else value for key, value in run["changes"].items()}
    changes["training"] = {k: v for k, v in changes.get("training", {}).items() if k not in RATE_SETTINGS}
    for table in STARTED:
        # A start that a row sets itself is part of its name; one that a search found is not looked at.
        changes.get(table, {}).pop("start", None)
        if changes.get(table) == {}:
            del changes[table]
    # Through JSON, for what was read from a file has lists where a claim has tuples.
    return json.loads(json.dumps([run["task"], run["base"], changes, run["epochs"], run["seed"], run["search"]]))
