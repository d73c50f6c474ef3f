"""Show results: the page, figures and tables of a run, in files and on the terminal, from typed results alone."""
