"""Sections of a run file, one file each: their keys, defaults and meaning."""
