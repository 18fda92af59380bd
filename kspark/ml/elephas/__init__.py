"""The stages of Elephas, `ElephasEstimator` and `ElephasTransformer`, trained by kspark.

`estimator` and `transformer` contain the stages, `stage` their common base class and `params`
their Params; `compiling`, `losses` and `models` make a compiled model of Elephas' arguments;
`files` reads and writes Elephas' HDF5 files; `loading` has the functions that load stages.
"""
