"""Which version answers: the registry watcher, the loaded champion and challenger, the shadow trial."""
