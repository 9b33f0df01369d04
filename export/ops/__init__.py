"""The operators of domain ``ai.edgeq``: schema, shape inference, numpy meaning and standard-operator body.

Importing this package registers the schemas with :mod:`onnx.defs`, so that the ONNX checker and shape
inference know the operators. One module an operator; :mod:`edgeq.export.ops.registry` lists them.
"""

from edgeq.export.ops.registry import OPERATORS, Operator, attach_bodies, operator_for

__all__ = ["OPERATORS", "Operator", "attach_bodies", "operator_for"]
