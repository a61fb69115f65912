"""What surrounds the service when it runs: the S3-compatible store, images, cluster files.

Nothing here is imported by the service itself.
"""
