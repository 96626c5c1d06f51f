"""Random faults in small real runs: `make stress MINUTES=30`, or `python -m tests.stress --help`; not in `make test`.

A seed says everything: a layout, one or two faults and their moments (`case.py`). A run is disturbed so, put in order
and resumed until it is complete, and then judged by what has to be true of every run (`judge.py`): nothing is left, the
ledger tells each end and its cause, nobody innocent is left out, and the losses are those of an undisturbed run, bit
for bit. A local case lives in namespaces of its own, as if alone on a machine; the others on a Slurm cluster of the
tests.
"""
