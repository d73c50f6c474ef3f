"""lm-evaluation-harness's tasks: finding them by name, loading their data, and how each kind of them is scored."""
