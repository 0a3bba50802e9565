"""Which device computes, how exactly, and how fast.

`pick_device` takes a GPU only if it computes what the CPU computes. `fast_math` and the
other fast ways to compute, for training and for decoding, are here, and so are copies
of models with 16-bit weights.
"""
