"""The command line: `ais-bench`, `python -m ais_bench`. See docs/command-line.md.

The package imports heavy modules only after it has parsed the arguments, so help and version are printed at once.
"""
