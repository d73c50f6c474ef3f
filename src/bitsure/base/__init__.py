"""What every other package may use: errors, files, the store, processes, resources and the terminal."""
