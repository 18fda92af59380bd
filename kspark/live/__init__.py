"""Training with exchanges in the middle of an epoch: one long Spark job and a server.

`driver` is what the driver does, `task` what a task does: it trains a `run` of a replica in a
`meeting_loop` (synchronous: all replicas merge together) or a `push_loop` (asynchronous and
hogwild: each replica pushes for itself). `coordinator` decides on the driver what counts and who
waits for whom; `transport` has the sockets, `wire` the bytes; `shared_memory` is hogwild's vector
on the driver's own host.
"""
