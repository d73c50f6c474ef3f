"""Before and around a sweep's cells: compose them, plan them, estimate their work, run each in its own process."""
