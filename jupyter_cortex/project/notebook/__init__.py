"""From a notebook to the module that is published: ``class Handler`` plus exactly what it needs."""
