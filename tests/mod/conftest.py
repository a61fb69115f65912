"""One thread: small tensors on busy cores spend their time waiting for each other."""

import torch

torch.set_num_threads(1)
