"""The report of a run: one JSON file for machines and one self-contained page for people."""

from edgeq.report.build import write_report

__all__ = ["write_report"]
