"""What bundles of format 1, which ran in TVM's virtual machine, took: quoted, not measured here.

The program that made and ran them is no longer in the tree. The figures were measured before it went, on two cores of
the machine that the others are of.
"""

from __future__ import annotations

from typing import Any

QUOTED: dict[str, Any] = {
    "native files of an aarch64 bundle": "5.2 MiB and more",
    "environment beside numpy": "318 MB, 259 of them TVM's compiler",
    "start to the first result less the model's time": "4.5 times that of a program with TVM's libraries",
    "Python's own cost of a token and of an embedding, ms": "0.15 to 0.25",
    "peak memory beyond weights, caches and arena": "12 MiB",
    "MiniLM w8a8, 128 tokens, two threads, two or three other programs, ms": {
        "edgeq, format 1": 208,
        "OpenVINO int8": 36,
        "CTranslate2 int8": 47,
        "ONNX Runtime int8": 63,
    },
    "the same with one thread, ms": {
        "edgeq, format 1": 20,
        "OpenVINO int8": 23,
        "CTranslate2 int8": 29,
        "ONNX Runtime int8": 32,
    },
}
