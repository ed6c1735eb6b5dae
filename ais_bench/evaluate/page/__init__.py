"""Pictures of runs: a page of one file, and a trace. uPlot (MIT, its licence beside it) draws what moves over time."""
