"""The example notebooks, each with the frameworks it needs: ``python tests/frameworks/run.py``."""
