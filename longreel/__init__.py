"""What a user imports and types: the command line, errors and the schemas of the rows.

Schemas and errors are the ground floor that every other package may import; the
command line is the roof and imports the rest lazily. No video, model or Ray code belongs here.
"""

__version__ = "0.1.0"
