"""Which eigenvalues a Lanczos search looks for, and how large a basis that takes."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Int

# Expansions before a residual may end the search, whatever the tolerance.
LEAST_EXPANSIONS = 4


class Wanted(eqx.Module):
    """How many eigenvalues at each end; one more there is watched, the next in line."""

    largest: int = eqx.field(static=True)
    smallest: int = eqx.field(static=True)

    @property
    def count(self) -> int:
        """Number of wanted eigenvalues."""
        return self.largest + self.smallest

    @property
    def spares(self) -> int:
        """Number of pairs next in line: one at each end where anything is wanted."""
        return (self.largest > 0) + (self.smallest > 0)

    def positions(self, count: Int[Array, ""]) -> Int[Array, "wanted"]:
        """Places of the wanted among `count` values in increasing order, outermost first."""
        high = count - 1 - jnp.arange(self.largest)
        return jnp.clip(jnp.concatenate([high, jnp.arange(self.smallest)]), 0, count - 1)

    def spare_positions(self, count: Int[Array, ""]) -> Int[Array, "spares"]:
        """Places of the pairs next in line."""
        return self._ends(count, self.largest, self.smallest)

    def rivals(self, count: Int[Array, ""]) -> Int[Array, "spares"]:
        """Places of the wanted pairs that those next in line may overtake."""
        return self._ends(count, self.largest - 1, self.smallest - 1)

    def _ends(self, count, high, low) -> Int[Array, "spares"]:
        places = [count - 1 - high] * (self.largest > 0) + [jnp.asarray(low)] * (self.smallest > 0)
        return jnp.clip(jnp.stack(places), 0, count - 1)

    @property
    def block(self) -> int:
        """Number of start vectors: one of them sees only one copy of a multiple eigenvalue."""
        return max(self.largest, self.smallest)

    def kept(self, rows: int) -> tuple[int, int]:
        """Ritz vectors that a restart of a basis of so many rows keeps at the low and the high end.

        About half the basis, in proportion.
        """
        low = self.smallest + (self.smallest > 0)
        high = self.largest + (self.largest > 0)
        rest = max(rows // 2 - low - high, 0)
        share = rest * self.smallest // self.count
        return low + share, high + rest - share


def rows_needed(wanted: Wanted, parameters: int, *, least: bool = False) -> int:
    """The default number of rows of the basis (memory is twice this many vectors), or the least."""
    # What a restart keeps, or what the search starts with, and room to go on from there.
    held = max(wanted.count + wanted.spares, wanted.block) + LEAST_EXPANSIONS
    return min(parameters, held if least else max(32, 2 * held))
