"""Elephas' pair of stages, `ElephasEstimator` and `ElephasTransformer`, on kspark's engine.

`estimator` and `transformer` are the stages and `stage` what they share; `params` has their
Params; `compiling`, `losses` and `models` turn Elephas' arguments into a compiled model; `files`
reads and writes Elephas' HDF5 files; `loading` has the functions that load them.
"""
