"""Builds FunctionProtos: the exact meaning of a custom operator in standard ONNX operators."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper

from edgeq.formats.low_bit import OP_DOMAIN

UINT8 = onnx.TensorProto.UINT8


class Body:
    """Collects the nodes of one FunctionProto; every method returns the name of the value it made."""

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []

    def node(self, op_type: str, inputs: list[str], output: str, **attributes: object) -> str:
        """Appends one standard node with one output."""
        self._nodes.append(helper.make_node(op_type, inputs, [output], **attributes))
        return output

    def constant(self, value: np.ndarray | np.generic, output: str) -> str:
        """Appends a constant tensor."""
        tensor = numpy_helper.from_array(np.asarray(value), output)
        return self.node("Constant", [], output, value=tensor)

    def attribute(self, name: str, output: str, *, kind: str) -> str:
        """Appends a scalar that holds the calling node's attribute ``name``; kind is ``int`` or ``float``."""
        node = helper.make_node("Constant", [], [output])
        types = {"int": onnx.AttributeProto.INT, "float": onnx.AttributeProto.FLOAT}
        node.attribute.add(name=f"value_{kind}", type=types[kind], ref_attr_name=name)
        self._nodes.append(node)
        return output

    def size(self, name: str, output: str) -> str:
        """Appends an int64 vector of one entry that holds the calling node's attribute ``name``."""
        scalar = self.attribute(name, f"{output}_scalar", kind="int")
        one = self.constant(np.array([1], np.int64), f"{output}_one")
        return self.node("Reshape", [scalar, one], output)

    def fields(self, packed: str, output: str) -> str:
        """Splits bytes ``[..., 1, 4]`` into their codes ``[..., F, 4]``, F = 8 / bits, still uint8.

        The number of bits is the calling node's attribute, so one body serves every width.
        """
        bits = self.attribute("bits", "bits_per_code", kind="int")
        first, end = self.constant(np.int64(0), "first_shift"), self.constant(np.int64(8), "end_shift")
        steps = self.node("Range", [first, end, bits], "shift_steps")
        column = self.constant(np.array([-1, 1], np.int64), "as_column")
        shifts = self.node("Cast", [self.node("Reshape", [steps, column], "shift_column")], "shifts", to=UINT8)
        shifted = self.node("BitShift", [packed, shifts], "shifted", direction="RIGHT")
        # Indexed by the number of bits.
        masks = self.constant(np.array([2**n - 1 for n in range(9)], np.uint8), "masks")
        return self.node("BitwiseAnd", [shifted, self.node("Gather", [masks, bits], "mask", axis=0)], output)

    def function(
        self,
        name: str,
        *,
        opset: int,
        inputs: list[str],
        outputs: list[str],
        attributes: list[str],
        doc: str,
    ) -> onnx.FunctionProto:
        """Returns the finished FunctionProto in domain ``ai.edgeq``."""
        return helper.make_function(
            OP_DOMAIN,
            name,
            inputs,
            outputs,
            self._nodes,
            [helper.make_opsetid("", opset)],
            attributes,
            doc_string=doc,
        )
