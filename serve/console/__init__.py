"""The console at ``/``: a page, its style and its modules, sent to browsers as they lie here.

Nothing here is run by Python; ``serve.routes.console`` serves it, and it uses the public API alone.
"""
