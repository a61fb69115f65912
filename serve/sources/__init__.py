"""Live sources: opening them safely, sampling them in the wall's time, handing frames to a session.

All of it runs in one process without Ray; actors, and what the API shows of a stream, do not belong
here.
"""
