"""Rules by which flags become keys of a run file, one file per subject. What is plain needs none: the table has it."""
