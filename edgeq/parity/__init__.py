"""Proof that every stage of a run computes the same model.

Dynamic int8 turns a difference of one float ulp into a whole step where a value sits at a rounding edge,
so two correct programs can differ visibly in single numbers. Five rules, each with a yardstick that is
measured or derived rather than picked by hand:

* ``isolated``: each low-bit operator on the reference's own input; integer sums equal, floats within a
  bound derived from the number of roundings (:mod:`edgeq.parity.rules.isolated`).
* ``end-to-end``: the stage differs from PyTorch by no more than twice what noise of one ulp in front of
  every quantizer makes of PyTorch itself (:mod:`edgeq.parity.rules.end_to_end`); an encoder's float baseline also by
  twice what PyTorch differs from the model in float64.
* ``task``: decisions (labels, nearest sentences) change no more often than under that noise, plus two
  (:mod:`edgeq.parity.rules.decisions`); of a model that generates text, every token that PyTorch chose clearly is
  chosen again (:mod:`edgeq.parity.rules.chosen_tokens`).
* ``bit-identical``: edgeq's own backends agree in every bit, on every processor, for every number of
  threads and every batch, with a cache and without (:mod:`edgeq.parity.rules.bit_identical`).
* ``meaning``: texts give what the library gives that people use the float model with (``transformers.pipeline``,
  ``SentenceTransformer.encode``, ``generate``), with the compressed model's arithmetic inside it
  (:mod:`edgeq.parity.rules.meaning`).

Where a rule is broken, :func:`diff_layers` walks the layers in order and finds the first that leaves its envelope.
"""

from edgeq.parity.diff import BACKENDS, diff_layers
from edgeq.parity.run import run_parity
from edgeq.results import BackendDiff, Check, ParityReport

__all__ = ["BACKENDS", "BackendDiff", "Check", "ParityReport", "diff_layers", "run_parity"]
