"""The best recipe for a budget: bits of each matrix and table, and the method of calibration."""

from edgeq.search.run import SearchRequest, SearchResult, search

__all__ = ["SearchRequest", "SearchResult", "search"]
