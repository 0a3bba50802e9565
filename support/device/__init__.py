"""Which device computes, how exactly, and how fast.

`pick_device` takes a GPU only if it computes what the CPU computes. Where there are
several ways to compute the same, `fastest` times them on this machine, and one that is
as exact as plain PyTorch and faster is used by `fast_math`, `fast_dropout`,
`fast_vocabulary` and `fast_decoding`. `half_precision_copy` copies a model with 16-bit
weights.
"""
