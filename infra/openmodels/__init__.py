"""Open video models to check against: tiny checkpoints with the real classes and files, and what
transformers itself says of them, from a process of its own.
"""
