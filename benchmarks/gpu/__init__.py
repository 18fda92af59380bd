"""Check kspark on one GPU, and measure epochs beside plain Keras on the same GPU.

    python -m benchmarks.gpu
    python -m benchmarks.gpu --device cpu

It takes at most five minutes. The second command runs the same code on a machine without a GPU: the
tasks get a made-up address, which hides all GPUs, and everything else is the same. `KERAS_BACKEND`
chooses the backend. The exit status is 1 if a check fails.

A local cluster with one executor has one GPU, of which each of two tasks takes a half. The checks:

* Each worker computes on the GPU, and sees no other.
* Two workers share it: both trained in one live fit, whose tasks run at the same time.
* The workers are forks of the daemon that imported the backend.
* Fits of all three modes end with the weights that the same fits have on the CPU, up to the
  rounding of float32. Asynchronous and hogwild fits have one worker there, because the order of
  several differs from fit to fit.
* Fits of all three modes with two workers reach the accuracy of plain Keras, less five points.

Seconds are those of a warm epoch: the median time from the end of an epoch to the end of the next
one. Models and rows are those of `benchmarks.training`, with synthetic images. TF32 is off
(`NVIDIA_TF32_OVERRIDE=0`): it rounds to fewer bits than float32 has.
"""
