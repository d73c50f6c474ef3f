"""A sweep's report from what its cells left: sweep.parquet, sweep.html, figures and tables; no model is loaded."""
