"""Open video language models as they are published: how each family sees frames and is talked to.

``family`` is what a family must define, each family is one file, ``known`` lists them, and ``chat``
lays out their dialogue. What the engine does with frames, and how weights are loaded, do not belong
here.
"""
