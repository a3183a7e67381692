"""Devices of somebody else in the loop: the rack's side of their Channel Access, and of an I/O card."""
