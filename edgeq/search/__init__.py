"""The best recipe for a budget: bits of each matrix and table, shapes, and the method of calibration."""

from edgeq.search.request import SearchRequest, SearchResult
from edgeq.search.run import search

__all__ = ["SearchRequest", "SearchResult", "search"]
