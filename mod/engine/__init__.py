"""The session engine: many video streams on one model, with paged caches and shared steps.

It needs torch and transformers only; no Ray, no HTTP, no video container belongs here.
"""
