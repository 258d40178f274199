"""Makes the running workers match the wanted deployments on this machine."""
