"""Media of clients to pixels, in processes of their own that may die without taking anything along.

HTTP does not belong here, nor do live sources, which have a process each.
"""
