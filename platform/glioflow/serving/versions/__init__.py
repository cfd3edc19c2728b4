"""Choice of the version that answers: registry watcher, loaded champion and challenger, shadow trial."""
