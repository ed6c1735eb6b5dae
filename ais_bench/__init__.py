"""One model on every accelerator of a machine.

Nothing is defined here: another distribution ships an empty `ais_bench/__init__.py` that may overwrite this one. Import
from `ais_bench.session`, or by the API guide's names from `ais_bench.infer.interface`.
"""
