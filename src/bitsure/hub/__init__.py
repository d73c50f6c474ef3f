"""Files and data sets from a mirror, the hub's cache or the hub, and errors that say why one is not available."""
