"""VideoLLM-MoD: the network, its ragged KV cache, streaming sessions, training and its data.

Needs torch, transformers and tokenizers only, so that it runs wherever a checkpoint does; Ray,
HTTP and video containers stay out.
"""
