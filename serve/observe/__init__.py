"""What the service tells of itself: metrics as Prometheus takes them, and what ties log lines and
spans of one request together. What is counted lies where it happens; names and help of all metrics
lie in ``longreel.metrics``."""
