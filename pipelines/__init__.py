"""Work on a Ray cluster: bulk jobs from sources to rows, how they are sent there, and training.

Planning and reducing are plain functions; the job files connect them to Ray. HTTP and model
internals do not belong here.
"""
