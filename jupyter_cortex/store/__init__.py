"""Redis: the one maker of keys, the atomic scripts, the records."""
