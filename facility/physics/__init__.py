"""Beam physics as pure functions over numpy scalars and arrays."""
