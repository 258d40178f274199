"""The engine: Dramatiq broker, intake, worker (supervisor) and replica."""
