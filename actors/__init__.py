"""Ray actors and the plain functions they wrap: objects in storage, probing, decoding, progress.

Everything that touches a video container or an object store lives here; the model and the
dataflow between actors do not.
"""
