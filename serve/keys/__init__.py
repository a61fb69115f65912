"""API keys: what they are, where they are kept, and what each may use.

Nothing here speaks HTTP or reaches a session; ``serve.routes.guard`` asks clients for their key,
and ``serve.routes.owned`` keeps what belongs to one key from all others.
"""
