"""From a spec to the things it declares."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import PyTree

from .. import datasets, losses, networks
from ..flows import Flow
from ..objectives import AbstractReduction, AllAtOnce, MicroBatches, Objective
from ..optimizers import GradientDescent, HeavyBall, Nesterov, NesterovConstant, Optimizer
from ._consistency import Sections
from ._errors import FieldError
from ._memory_needed import MemoryNeeded
from ._misfits import DataShape, misfits, mistakes_in, needed_by
from ._network import make_network
from .declare import Declaration
from .spec import Spec

# Images that a convolutional network works on at once on a CPU: what is between its layers then
# fits into the caches.
_FEW_IMAGES = 50


@dataclass(frozen=True)
class PlannedFlow:
    """A flow and the times to save it at."""

    name: str
    flow: Flow
    times: np.ndarray


@dataclass(frozen=True)
class PlannedRun:
    """An optimizer, the steps to save it at, and the name of the flow that it discretises."""

    name: str
    optimizer: Optimizer
    save_steps: np.ndarray
    flow: str


@dataclass(frozen=True)
class Plan:
    """Everything that a study computes with."""

    spec: Spec
    dataset: datasets.Dataset
    objective: Objective
    params: PyTree
    flows: list[PlannedFlow]
    runs: list[PlannedRun]
    memory: MemoryNeeded


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
        with mistakes_in("data", spec.data):
            dataset = _dataset(spec.data, folder, data_key)
        shape = DataShape.of(dataset)
        if errors := misfits(sections, folder, shape):
            raise declaration.mistakes(errors)
        if spec.loss.kind == "squared_error":
            dataset = dataset.one_hot()
        with mistakes_in("network", spec.network):
            params = make_network(spec.network, shape.sample, shape.outputs, network_key)
        inputs, targets, params = jax.tree.map(
            lambda x: x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x,
            (dataset.inputs, dataset.targets, params),
        )
        loss = getattr(losses, spec.loss.kind)
        with mistakes_in("data", spec.data):
            objective = Objective(
                networks.apply,
                loss,
                inputs,
                targets,
                reduction=_reduction(params),
                params=params,
            )
    except FieldError as error:
        raise declaration.mistakes([error]) from error
    flows, runs = lay_out(spec)
    return Plan(spec, dataset, objective, params, flows, runs, needed_by(sections, shape))


def _reduction(params: PyTree) -> AbstractReduction:
    """Few samples at once where images between layers would not fit into a processor's caches."""
    convolutional = isinstance(params, networks.Convolutional)
    few = convolutional and jax.default_backend() == "cpu"
    return MicroBatches(_FEW_IMAGES) if few else AllAtOnce()


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
        optimizer = _optimizer(section)
        flow = optimizer.limit()
        steps = np.unique(np.round(grid / optimizer.time_per_step).astype(int))
        if flow not in flows:
            flows.append(flow)
            times.append([])
        index = flows.index(flow)
        times[index].append(steps * optimizer.time_per_step)
        assigned.append((optimizer, steps, index))
    names = _flow_names(flows)
    planned = [
        PlannedFlow(name, flow, _union(rows))
        for name, flow, rows in zip(names, flows, times, strict=True)
    ]
    runs = [
        PlannedRun(name, optimizer, steps, names[index])
        for name, (optimizer, steps, index) in zip(spec.run_names(), assigned, strict=True)
    ]
    return planned, runs


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


def _dataset(section: Any, folder: Path, key: Any) -> datasets.Dataset:
    match section.kind:
        case "digits":
            data = datasets.digits(section.samples)
        case "idx":
            data = datasets.idx(
                folder / section.folder,
                samples=section.samples,
                every=section.every,
                split=section.split,
                normalise=(section.mean, section.deviation),
            )
        case "openml":
            data = datasets.openml(
                section.name, version=section.version or "active", samples=section.samples
            )
        case _:
            data = datasets.gaussian_teacher(
                section.samples,
                section.features,
                hidden=section.hidden,
                outputs=section.outputs,
                activation=section.activation,
                noise=section.noise,
                key=key,
            )
    return data.standardised() if getattr(section, "standardise", False) else data


def _optimizer(section: Any) -> Optimizer:
    match section.kind:
        case "gradient_descent":
            return GradientDescent(section.step_size)
        case "heavy_ball":
            return HeavyBall(section.step_size, section.momentum)
        case "nesterov":
            return Nesterov(section.step_size, section.damping)
        case _:
            return NesterovConstant(section.step_size, section.momentum)
