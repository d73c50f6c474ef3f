"""What every other package may use: errors, files, the store, the memo, processes, resources and the terminal."""
