"""The command line: `ais-bench`, `python -m ais_bench`. See docs/command-line.md.

Nothing heavy is imported before it is known what to do: help and version take as long as the interpreter.
"""
