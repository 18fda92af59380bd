"""Scale the learning rate with the number of workers.

If k workers merge the gradients of every batch, each step uses a batch that is k times as
large. Two rules adapt the learning rate `r` of a single worker:

```
"linear"   k r         one step on k b examples replaces k steps on b  (Goyal et al. 2017)
"sqrt"     sqrt(k) r   the variance of a step stays the same           (Krizhevsky 2014)
```

A large learning rate can fail in the first epochs, while the weights change fast. Warm-up
increases it step by step. With W epochs of warm-up, all steps of epoch e, counted from 0,
use the factor

```
factor(e) = 1 + (full - 1) e / W   for e < W,   full = k or sqrt(k) afterwards
```

The "gradual warmup" of Goyal et al. grows with every step, and corrects the momentum for
it. Here the momentum of earlier steps is not corrected; it adapts within a few steps.

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
    """The factor of the learning rate, by number of workers and epoch.

    Attributes:
        rule: String, `"linear"` or `"sqrt"`.
        warmup_epochs: Float >= 0, number of epochs of warm-up.
    """

    rule: str
    warmup_epochs: float = 0.0

    def full_factor(self, num_workers: int) -> float:
        """Return the factor of the learning rate after the warm-up."""
        return float(num_workers) if self.rule == LINEAR else math.sqrt(num_workers)

    def factor(self, num_workers: int, epoch: int) -> float:
        """Return the factor of the learning rate in an epoch.

        Args:
            num_workers: Integer >= 1.
            epoch: Integer, counted from 0 as in Keras. A fit that continues at
                `initial_epoch` does not repeat the warm-up.
        """
        full = self.full_factor(num_workers)
        if epoch >= self.warmup_epochs:
            return full
        return 1.0 + (full - 1.0) * epoch / self.warmup_epochs


def check_scaling(
    scale_lr: Any, warmup_epochs: Any, mode: str, frequency: str | int
) -> Scaling | None:
    """Check the arguments of a scaled learning rate.

    Returns:
        `Scaling`, or `None` without `scale_lr`.

    Raises:
        ValueError: If a value is out of range, or replicas do not merge gradients.
        TypeError: If a value has a wrong type.
    """
    warmup = check_number_of_epochs("warmup_epochs", warmup_epochs)
    if scale_lr is None:
        if warmup_epochs:
            raise invalid("warmup_epochs", "0 without `scale_lr`", warmup_epochs)
        return None
    if scale_lr not in RULES:
        names = " or ".join(f'"{rule}"' for rule in RULES)
        raise invalid("scale_lr", f"None, {names}", scale_lr)
    if (mode, frequency) != ("synchronous", "batch"):
        reason = (
            f'None with mode="{mode}" and frequency={frequency!r}, where each replica takes its '
            "own steps on batches of `batch_size` examples, however many workers there are; use "
            'mode="synchronous" with frequency="batch" for steps on the joint batch of all workers'
        )
        raise invalid("scale_lr", reason, scale_lr)
    return Scaling(str(scale_lr), warmup)
