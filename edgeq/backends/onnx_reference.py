"""The ONNX project's own evaluator in numpy, running the bodies of the low-bit operators."""

from __future__ import annotations

import onnx
from onnx.reference import ReferenceEvaluator

from edgeq.arrays import Arrays


class OnnxReference:
    """A model in the ONNX reference evaluator.

    Args:
        model: The model, with its weights.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self._evaluator = ReferenceEvaluator(_without_overloads(model))

    def __call__(self, feed: Arrays, /) -> Arrays:
        """Runs one batch; see :class:`edgeq.backends.Backend`."""
        return dict(zip(self._evaluator.output_names, self._evaluator.run(None, feed), strict=True))


def _without_overloads(model: onnx.ModelProto) -> onnx.ModelProto:
    """Gives overloaded functions names of their own: the evaluator would run the last one for all nodes."""
    if not any(item.overload for item in (*model.functions, *model.graph.node)):
        return model  # a copy would hold the weights once more
    plain = onnx.ModelProto()
    plain.CopyFrom(model)
    for item in (*plain.functions, *plain.graph.node):
        if item.overload:
            name = "name" if isinstance(item, onnx.FunctionProto) else "op_type"
            setattr(item, name, f"{getattr(item, name)}_{item.overload}")
            item.overload = ""
    return plain
