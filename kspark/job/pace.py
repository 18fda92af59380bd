"""Estimate how long a fit takes, without the start of its workers."""

from __future__ import annotations

MEASURED_SECONDS = 1.0
"""Seconds of training after which a speed is known. The first batches are slower than others."""


class Pace:
    """Measures the speed of training from the first examples on that are known to be trained.

    The first epoch contains the start of the workers and the compilation of the model, which do
    not come again. So its time before the first report is not counted, and as soon as there are
    later epochs, only these are.

    Args:
        epochs: Integer, the number of epochs to train.

    Attributes:
        speed: Float, examples per second of the running epoch, or of the last one that has
            reported. `None` if it is unknown.
    """

    def __init__(self, epochs: int) -> None:
        self.speed: float | None = None
        self._left = epochs
        self._began = 0.0
        self._first: tuple[float, int] | None = None
        self._warm: list[float] = []
        self._cold: float | None = None

    def begin_epoch(self, now: float) -> None:
        """Note the time in seconds at which an epoch begins."""
        self._began, self._first = now, None

    def note(self, now: float, done: int) -> None:
        """Note how many examples of the epoch were trained at some time."""
        if self._first is None or done < self._first[1]:  # The epoch has started again.
            self._first = (now, done) if done else None
        elif now >= self._first[0] + MEASURED_SECONDS and done > self._first[1]:
            self.speed = (done - self._first[1]) / (now - self._first[0])

    def end_epoch(self, now: float, total: int) -> None:
        """Note the end of an epoch of `total` examples."""
        self._left -= 1
        if self._cold is not None or self._warm:
            self._warm.append(now - self._began)
        elif self._first is None or self._first[1] >= total:
            self._cold = 0.0  # Nothing was reported, so that the time of the start is unknown.
        else:
            since, done = self._first
            self._cold = (now - since) * total / (total - done)

    def seconds_left(self, done: int = 0, total: int = 0) -> float | None:
        """Return the estimated seconds until the end of the fit, or `None`.

        Args:
            done: Integer, examples of the running epoch that were trained. Defaults to `0`.
            total: Integer, its number of examples. Defaults to `0`, between two epochs.
        """
        epoch = sum(self._warm) / len(self._warm) if self._warm else self._cold
        if not total:
            return epoch * self._left if epoch else None
        if self.speed is None:
            return None
        epoch = epoch or total / self.speed
        return (total - done) / self.speed + epoch * (self._left - 1)
