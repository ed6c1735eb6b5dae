"""The subcommands. Each module has `add_options(parser)`, `run(options)` and `EXAMPLES`."""
