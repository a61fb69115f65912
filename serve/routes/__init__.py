"""The HTTP API: routes, the shapes they speak, and the media that clients send.

Routes reach sessions and the model through ``serve.routes.context`` alone, so they run without Ray;
what a replica does, and where sessions live, do not belong here.
"""
