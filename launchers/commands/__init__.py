"""The commands of `ebbtide`, one module each.

Every module has `command`, the function that typer calls, and `EXAMPLE`, shown at the end of its help. Anything slow
(torch, httpx, h5py) is imported inside the command that needs it: a login node without torch runs the others.
"""
