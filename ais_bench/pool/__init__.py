"""The device pool: worker processes, supervision, dispatch."""
