"""The published JSON Schemas of results: ``python docs/schemas.py`` writes ``docs/reference/schemas/``."""

from __future__ import annotations

import json
from pathlib import Path

FOLDER = Path(__file__).parent / "reference" / "schemas"


def files() -> dict[str, str]:
    """Returns the contents of each file by its name."""
    from edgeq.results import FILES, OTHERS, schema_of
    from edgeq.search.report import SearchRecord

    kinds = {**FILES, **OTHERS, "search.json": SearchRecord}
    return {
        f"{Path(name).stem}.schema.json": json.dumps(schema_of(kind), indent=1) + "\n" for name, kind in kinds.items()
    }


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, text in files().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
