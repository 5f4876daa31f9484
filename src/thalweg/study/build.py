"""From a spec to the things it declares."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

from .. import losses, networks
from ..datasets import DataShape
from ..flows import Flow
from ..networks import NetworkSection
from ..objectives import AbstractReduction, AllAtOnce, MicroBatches, Objective
from ..optimizers import Optimizer
from ._consistency import Sections
from ._errors import FieldError, mistakes_in
from ._misfits import misfits, needed_by
from .declare import Declaration
from .plan import Plan, PlannedFlow, PlannedRun
from .spec import Spec


def build(declaration: Declaration) -> Plan:
    """Load the data, draw the network, and lay out the common clock.

    **Raises:** ValueError when the spec asks for float64 while JAX's 64-bit mode is off; SpecError,
    with their lines, for all mistakes that the data show: they are not there, or data, network,
    loss and the machine's memory do not fit.
    """
    spec, folder = declaration.spec, declaration.folder
    dtype = jnp.dtype(spec.study.dtype)
    if dtype == jnp.float64 and not jax.config.read("jax_enable_x64"):
        raise ValueError(
            "study.dtype: float64 needs JAX's 64-bit mode:"
            ' `jax.config.update("jax_enable_x64", True)` before anything else.'
        )
    sections = Sections.of(spec)
    if errors := misfits(sections, folder):
        raise declaration.mistakes(errors)
    data_key, network_key = jr.split(jr.key(spec.study.seed))
    try:
        with mistakes_in(("data",), spec.data):
            dataset = spec.data.load(folder, data_key)
        shape = DataShape.of(dataset)
        if errors := misfits(sections, folder, shape):
            raise declaration.mistakes(errors)
        if spec.loss.kind == "squared_error":
            dataset = dataset.one_hot()
        with mistakes_in(("network",), spec.network):
            params = spec.network.draw(shape.sample, shape.outputs, network_key)
        inputs, targets, params = jax.tree.map(
            lambda x: x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x,
            (dataset.inputs, dataset.targets, params),
        )
        with mistakes_in(("data",), spec.data):
            objective = Objective(
                networks.apply,
                getattr(losses, spec.loss.kind),
                inputs,
                targets,
                reduction=_reduction(spec.network),
                params=params,
            )
    except FieldError as error:
        raise declaration.mistakes([error]) from error
    flows, runs = lay_out(spec)
    memory = needed_by(sections, shape)
    return Plan(spec, dataset, objective, params, flows, runs, memory, shape.classes)


def _reduction(section: NetworkSection) -> AbstractReduction:
    return AllAtOnce() if section.at_once is None else MicroBatches(section.at_once)


def lay_out(spec: Spec) -> tuple[list[PlannedFlow], list[PlannedRun]]:
    """The common clock: which steps of every optimizer, and which times of every flow, are saved.

    Each optimizer saves the steps nearest to `saves + 1` equally spaced times from 0 to `t1`. Each
    distinct flow is integrated once and saves the times of all optimizers that discretise it, so
    that no comparison needs interpolation.
    """
    grid = np.linspace(0, spec.flow.t1, spec.flow.saves + 1)
    flows: list[Flow] = []
    times: list[list[np.ndarray]] = []
    assigned = []
    for section in spec.optimizers:
        optimizer = section.make()
        steps = np.unique(np.round(grid / optimizer.time_per_step).astype(int))
        flow, index = _limit(optimizer), None
        if flow is not None:
            if flow not in flows:
                flows.append(flow)
                times.append([])
            index = flows.index(flow)
            times[index].append(steps * optimizer.time_per_step)
        assigned.append((section, optimizer, steps, index))
    names = _flow_names(flows)
    planned = [
        PlannedFlow(name, flow, _union(rows))
        for name, flow, rows in zip(names, flows, times, strict=True)
    ]
    runs = [
        PlannedRun(
            section.known_as, section, optimizer, steps, None if index is None else names[index]
        )
        for section, optimizer, steps, index in assigned
    ]
    return planned, runs


def _limit(optimizer: Optimizer) -> Flow | None:
    """The flow that an optimizer discretises, if one is known."""
    try:
        return optimizer.limit()
    except ValueError:
        return None


def _union(rows: list[np.ndarray]) -> np.ndarray:
    """All times, in order, those that differ by rounding only once."""
    times = np.unique(np.concatenate(rows))
    apart = np.diff(times, prepend=-np.inf) > 1e-9 * times[-1]
    return times[apart]


def _flow_names(flows: list[Flow]) -> list[str]:
    names: list[str] = []
    for flow in flows:
        base = flow.name.lower().replace(" ", "_").replace("-", "_")
        same = sum(name == base or name.startswith(base + "_") for name in names)
        names.append(base if not same else f"{base}_{same + 1}")
    return names
