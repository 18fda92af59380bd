"""Training with exchanges in the middle of an epoch: one long Spark job and a server.

`driver` contains the driver's part of the training, and `task` the part of a Spark task. A task
trains a `run` of a replica in a `meeting_loop` (synchronous: all replicas merge together) or a
`push_loop` (asynchronous and hogwild: each replica pushes by itself). On the driver, `coordinator`
admits replicas, counts their exchanges and makes them wait for each other. `transport` contains
the sockets, `wire` the messages, and `shared_memory` the weights that hogwild replicas on the
driver's host map.
"""
