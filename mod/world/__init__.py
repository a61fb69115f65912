"""The generated world: videos rendered from a seed, with narrations that are true by construction.

Numpy and Pillow only. Training, the demo's sample videos and the quality tests all read it.
"""
