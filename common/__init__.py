"""What all folders share: words and mistakes, files, time limits, names of nodes, sizes. Imports none of our folders.

Standard library, PyYAML and pydantic only, so that a login node loads it at once.
"""
