"""Ray Data jobs: from sources to a plan of segments, through decoding and the model, to rows.

Planning and reducing are plain functions; the job files connect them to Ray. HTTP and model
internals do not belong here.
"""
