"""A parameter server: what coordinator, servers and workers agree on, without any framework.

`clock` decides which worker may compute what, `placement` which server holds which parameters,
`rpc` carries their messages. `baselines/param_server.py` is the program.
"""
