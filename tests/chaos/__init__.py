"""Nothing accepted is lost, whatever dies: a seeded run of clients, faults and counting.

``python -m tests.chaos`` is the long one (20,000 workloads); ``pytest tests/chaos`` runs one of about three minutes and the tests beside it.
"""
