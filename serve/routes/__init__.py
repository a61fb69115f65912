"""The HTTP API: routes, the shapes they speak, and what they make of bodies, URLs and files.

Routes reach sessions and the model through ``serve.routes.context`` alone, so they run without Ray;
what a replica does, and where sessions live, do not belong here.
"""
