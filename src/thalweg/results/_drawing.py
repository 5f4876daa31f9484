"""Lines with error bands in matplotlib."""

from typing import Any

import numpy as np

# Positive numbers that span more than this are drawn on a logarithmic axis.
_WIDE = 30.0


def axes_of(ax: Any, x: str, y: str) -> Any:
    """The axes given, or new ones, with their axes named."""
    if ax is None:
        import matplotlib.pyplot as plt

        _, ax = plt.subplots(layout="constrained")
    ax.set_xlabel(x)
    ax.set_ylabel(y)
    return ax


def draw_line(ax: Any, x: Any, y: Any, error: Any = None, label: str | None = None) -> None:
    """A line, with a band of its errors where they are known.

    The vertical axis becomes logarithmic where the numbers are positive and of different sizes, and
    everything that is drawn on it is.
    """
    x, y = np.asarray(x, float), np.asarray(y, float)
    positive = y[np.isfinite(y) & (y > 0)]
    signed = bool(np.any(y < 0))
    alone = not ax.lines
    wide = positive.size > 1 and positive.max() > _WIDE * positive.min()
    if alone and wide and not signed:
        ax.set_yscale("log")
    elif signed:
        ax.set_yscale("linear")
    shown = np.where(y > 0, y, np.nan) if ax.get_yscale() == "log" else y
    few = "o" if np.isfinite(shown).sum() <= 20 else None
    (line,) = ax.plot(x, shown, label=label, marker=few, markersize=3)
    if error is not None:
        error = np.asarray(error, float)
        low, high = shown - error, shown + error
        if ax.get_yscale() == "log":
            # A band that reaches to zero has no lower edge on a logarithmic axis.
            low = np.maximum(low, 0.1 * np.nanmin(shown, initial=np.inf))
        ax.fill_between(x, low, high, color=line.get_color(), alpha=0.25, linewidth=0)
    if label is not None:
        ax.legend()
