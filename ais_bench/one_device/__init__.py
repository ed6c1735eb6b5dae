"""One model on one device: InferSession, the low-level session of `aclruntime`, and their feeds, tensors and times.

This package runs in the caller's process, and in a worker if a task needs Python. So it imports nothing of either side.
"""
