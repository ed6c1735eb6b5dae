"""Shared memory between a parent and its workers."""
