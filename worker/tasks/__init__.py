"""One file a task family; a task is parse, one call, reply."""
