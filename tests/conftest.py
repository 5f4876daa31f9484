"""Tests compare against float64 oracles, so 64-bit mode is on for the whole suite."""

import jax

jax.config.update("jax_enable_x64", True)
