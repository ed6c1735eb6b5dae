"""The summary of a benchmark run, under the path it has always had: names only."""

from ais_bench.session.summary import ListInfo, Summary, summary

__all__ = ["ListInfo", "Summary", "summary"]
