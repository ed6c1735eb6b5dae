"""The worker's side: the code in the processes that a pool starts. The parent never imports it.

main               prepares the process, makes the handler, serves tasks
log                carries log records to the parent
session_handler    one model, and the user's callables around it
callables          runs preprocess and postprocess beside the device
preprocess         a worker that only preprocesses
"""
