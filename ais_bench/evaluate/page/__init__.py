"""Pictures of runs: an HTML page in one file, and a trace. uPlot (MIT, licence in this folder) draws the curves over time."""
