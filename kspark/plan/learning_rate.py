"""The learning rate for a joint batch: what it is multiplied by as workers are added.

With k workers that merge the gradients of every batch, a step is one on k times the
batch. Two rules are in use for the learning rate `r` that suits a single worker:

```
"linear"   k r         k steps on batches of b become one on k b      (Goyal et al. 2017)
"sqrt"     sqrt(k) r   the variance of a step stays what it was       (Krizhevsky 2014)
```

A large learning rate may fail at the beginning, when the weights still change fast.
So it may be warmed up, as Goyal et al. do it in "gradual warmup": with W epochs of
warm-up, epoch e (from 0) has

```
factor(e) = 1 + (full - 1) e / W   for e < W,   full = k or sqrt(k) from then on
```

constant within the epoch. (Theirs grows from step to step, and corrects momentum for
it. Here a momentum that was gathered at a lower rate is left as it is: it catches up
within a few steps.)

References:
    Goyal et al., 2017, "Accurate, Large Minibatch SGD: Training ImageNet in 1 Hour",
    https://arxiv.org/abs/1706.02677, sections 2.1 and 2.2.
    Krizhevsky, 2014, "One weird trick for parallelizing convolutional neural networks",
    https://arxiv.org/abs/1404.5997, section 5; Hoffer, Hubara, Soudry, 2017, "Train
    longer, generalize better", https://arxiv.org/abs/1705.08741.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from kspark.errors import invalid
from kspark.plan.checks import check_number_of_epochs

LINEAR = "linear"
SQRT = "sqrt"
RULES = (LINEAR, SQRT)


@dataclass(frozen=True)
class Scaling:
    """How the learning rate follows the number of workers.

    Attributes:
        rule: `"linear"` or `"sqrt"`.
        warmup_epochs: Float >= 0, epochs until the whole factor is reached.
    """

    rule: str
    warmup_epochs: float = 0.0

    def full_factor(self, num_workers: int) -> float:
        """What the learning rate is multiplied by after the warm-up."""
        return float(num_workers) if self.rule == LINEAR else math.sqrt(num_workers)

    def factor(self, num_workers: int, epoch: int) -> float:
        """What the learning rate of an epoch is multiplied by.

        Args:
            num_workers: Integer >= 1.
            epoch: Integer, counted from 0 as Keras does: training that goes on at
                `initial_epoch` does not begin to warm up again.
        """
        full = self.full_factor(num_workers)
        if epoch >= self.warmup_epochs:
            return full
        return 1.0 + (full - 1.0) * epoch / self.warmup_epochs


def check_scaling(
    scale_lr: Any, warmup_epochs: Any, mode: str, frequency: str | int
) -> Scaling | None:
    """How the learning rate is scaled, or `None` if it is not.

    Raises:
        ValueError: If a value is out of range, or if replicas take steps of their own.
        TypeError: If a value is of a wrong type.
    """
    warmup = check_number_of_epochs("warmup_epochs", warmup_epochs)
    if scale_lr is None:
        if warmup_epochs:
            meaning = "0 without `scale_lr`: it leads from the learning rate to the scaled one"
            raise invalid("warmup_epochs", meaning, warmup_epochs)
        return None
    if scale_lr not in RULES:
        names = " or ".join(f'"{rule}"' for rule in RULES)
        raise invalid("scale_lr", f"None, {names}", scale_lr)
    if (mode, frequency) != ("synchronous", "batch"):
        reason = (
            f'None with mode="{mode}" and frequency={frequency!r}, where each replica takes steps '
            "of its own on batches of `batch_size`; their number does not change what learning "
            'rate these can bear. mode="synchronous" with frequency="batch" steps on the joint '
            "batch of all workers"
        )
        raise invalid("scale_lr", reason, scale_lr)
    return Scaling(str(scale_lr), warmup)
