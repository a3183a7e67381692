"""Slow extraction, particle by particle: the reference, off line, that the live rate model is to be calibrated with.

Nothing here runs in the plant's tick. The folder is no part of the key of the compiled rack (`facility.jit`): all
compiled code stands in `kernel.py` alone, whose edits numba sees by itself.
"""
