"""The subcommands: one module each, with `add_options(parser)`, `run(options)` and `EXAMPLES`."""
