"""What surrounds the service when it runs and is checked: files for Prometheus and Grafana, an
S3-compatible store, faulty networks, live sources, open models. Nothing here is imported by the
service itself.
"""
