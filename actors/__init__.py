"""Ray actors and the plain functions they wrap: objects in storage, decoding, a job's ledger, the
directory of live sessions and the state store.

HTTP, the model, live sources and the dataflow between actors do not belong here.
"""
