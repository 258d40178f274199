"""`%cortex save` with the real frameworks: run by ``run.py`` in each environment; what an environment lacks is skipped there."""
