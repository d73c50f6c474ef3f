"""Every setting as a typed class, its checks, and where the project's files are; torch is not imported."""
