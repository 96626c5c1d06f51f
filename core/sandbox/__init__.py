"""A place for strangers' Python: bounded in time, memory, processes, output and files, without network or secrets.

Inside and outside are two programs. Outside (`sandbox.py`, `ways.py`) is a library of the caller. Inside (`start.py`
and what it imports) is a program of its own that imports the standard library alone, so that it starts in milliseconds:

    caller ──► launcher (start.py) ──► init: process 1 of new namespaces (init.py) ──► program: one after the other
"""
