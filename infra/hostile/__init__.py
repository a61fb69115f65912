"""Media that means harm, the same for the same seed: damaged in its structure, far larger than it
looks, or naming other files. Whoever decodes it is to be tried; nothing here is meant to be shown.
"""
