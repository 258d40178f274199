"""The words of the house: errors, spec, workload, settings. Standard library and pydantic only."""
