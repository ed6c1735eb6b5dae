"""One model on one device: InferSession, the low-level session of `aclruntime`, and what both take and give.

It runs in the process of the caller; in a worker when a task needs Python. So it imports nothing of either.
"""
