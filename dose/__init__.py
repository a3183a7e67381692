"""Dose in water: depth-dose curves of protons and carbon ions, scattering, dose of a field on a grid, gamma index.

Stands on `facility` alone, so that control, rig and console can all use it. The folder is no part of the key of the
compiled rack (`facility.jit`): all compiled code stands in `kernel.py`, whose edits numba sees by itself.
"""
