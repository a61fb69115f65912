"""The Ray Serve application: the replica that holds the model, and the HTTP gateway before it.

Bulk jobs and HTTP clients reach the model through this package only; the planning of jobs, and
Parquet, do not belong here.
"""
