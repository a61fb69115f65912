"""What surrounds the service when it runs: the S3-compatible store.

Nothing here is imported by the service itself.
"""
