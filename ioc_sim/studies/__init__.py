"""What the plant's own models do when they are looked at: a cycle of the ring, steps of the scanning supplies.

The folder is no part of the key of the compiled rack (`facility.jit`): nothing here is compiled.
"""
