"""One thread of torch: engines of several tests would wait for each other's."""

from __future__ import annotations

import torch

torch.set_num_threads(1)
