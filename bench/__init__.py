"""Measurements: each module prints one JSON object and writes it under ``results/<machine>/``.

A bench compares two sides in one run on the same inputs; it holds no product code.
"""
