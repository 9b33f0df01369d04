"""Reports: of one run, or of several beside each other; JSON for machines and a self-contained page for people."""

from edgeq.report.build import write_report
from edgeq.report.comparison import compare_runs

__all__ = ["compare_runs", "write_report"]
