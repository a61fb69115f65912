"""Open video language models as they are published: how each family sees frames and is talked to.

``family`` says what one has to tell; one file each tells it, ``known`` lists them.
"""
