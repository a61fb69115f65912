"""Live sessions on a replica: what they are given, what they tell, and how they outlive it.

The engine, the durable log and Ray Serve meet here; HTTP does not belong here, nor does what
decides which replica a session lives on.
"""
