"""edgeq's own bundle, by ``Bundle.encode``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from text_turns import Embed, serve

import edgeq


def load(request: dict[str, Any]) -> Mapping[str, Embed]:
    """Returns what a user calls."""
    bundle = edgeq.load(request["folder"], threads=request["threads"], verify=False)
    return {"as shipped": bundle.encode}


if __name__ == "__main__":
    serve(load, packages=("edgeq",))
