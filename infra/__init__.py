"""What surrounds the service when it runs and is checked: an S3-compatible store, faulty networks,
live sources, open models. Nothing here is imported by the service itself.
"""
