"""Settings as typed classes, their validation, and the places of the project's own files; nothing here imports torch."""
