"""What a project needs installed, and the Python that has it.

::

    requirements.py   what a requirements.txt asks for, and whether an interpreter has it
    needs.py          requirements.txt, conda-packages.txt, dependencies.sh and cortex.lock of one project, as one digest
    lock.py           cortex.lock: the exact versions that this interpreter has of what a project needs
    layers.py         how a Python sees the packages of the interpreter that it is layered on
    steps.py          the commands that make one: venv, conda, dependencies.sh, uv or pip
    running.py        one such command, followed line by line, within its time
    pythons.py        all of one machine: made once each, shared, pruned
"""
