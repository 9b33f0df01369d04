"""Calibration: what is done with texts without labels before a float model's layers are stored in few bits."""

from edgeq.quant.calibrate.block_reconstruction import BlockReconstruction
from edgeq.quant.calibrate.distill import Distill
from edgeq.quant.calibrate.error_feedback import ErrorFeedback, metric_of_table
from edgeq.quant.calibrate.observe import read_moments
from edgeq.quant.calibrate.optimise import Rates
from edgeq.quant.calibrate.run import QUANTIZER, Method, calibrate
from edgeq.quant.calibrate.second_moments import SecondMoments
from edgeq.quant.calibrate.smooth import Smooth
from edgeq.quant.calibrate.state import Batch, CalibrationState

__all__ = [
    "QUANTIZER",
    "Batch",
    "BlockReconstruction",
    "CalibrationState",
    "Distill",
    "ErrorFeedback",
    "Method",
    "Rates",
    "SecondMoments",
    "Smooth",
    "calibrate",
    "metric_of_table",
    "read_moments",
]
