"""Whom to cite for the methods that a study used."""

from dataclasses import dataclass

from ..results import Results


@dataclass(frozen=True)
class Citation:
    """One work: for what, in words, and as BibTeX."""

    used_for: str
    text: str
    bibtex: str


def _work(used_for: str, key: str, kind: str, **fields: str) -> Citation:
    body = ",\n".join(f"  {name} = {{{value}}}" for name, value in fields.items())
    where = fields.get("journal") or fields.get("booktitle") or fields.get("publisher", "")
    authors = fields["author"].replace(" and ", "; ")
    text = f"{authors}. {fields['title']}. {where}, {fields['year']}."
    return Citation(used_for, text, f"@{kind}{{{key},\n{body}\n}}")


_ALWAYS = (
    _work(
        "gradient descent beside gradient flow",
        "elkabetz2021continuous",
        "inproceedings",
        author="Elkabetz, Omer and Cohen, Nadav",
        title="Continuous vs. Discrete Optimization of Deep Neural Networks",
        booktitle="Advances in Neural Information Processing Systems 34",
        year="2021",
    ),
    _work(
        "sharpness against the limit of stability",
        "cohen2021gradient",
        "inproceedings",
        author="Cohen, Jeremy and Kaur, Simran and Li, Yuanzhi and Kolter, J. Zico and Talwalkar,"
        " Ameet",
        title="Gradient Descent on Neural Networks Typically Occurs at the Edge of Stability",
        booktitle="International Conference on Learning Representations",
        year="2021",
    ),
    _work(
        "eigenvalue intervals from residuals",
        "parlett1998symmetric",
        "book",
        author="Parlett, Beresford N.",
        title="The Symmetric Eigenvalue Problem",
        publisher="SIAM",
        year="1998",
    ),
    _work(
        "ODE solving",
        "kidger2021on",
        "phdthesis",
        author="Kidger, Patrick",
        title="On Neural Differential Equations",
        publisher="University of Oxford",
        year="2021",
    ),
    _work(
        "automatic differentiation and compilation",
        "jax2018github",
        "software",
        author="Bradbury, James and Frostig, Roy and Hawkins, Peter and Johnson, Matthew James and"
        " Leary, Chris and Maclaurin, Dougal and others",
        title="JAX: composable transformations of Python+NumPy programs",
        publisher="github.com/jax-ml/jax",
        year="2018",
    ),
)

_CHEBYSHEV = _work(
    "stabilised solvers of Runge-Kutta-Chebyshev type",
    "sommeijer1998rkc",
    "article",
    author="Sommeijer, B. P. and Shampine, L. F. and Verwer, J. G.",
    title="RKC: An explicit solver for parabolic PDEs",
    journal="Journal of Computational and Applied Mathematics 88(2), 315-326",
    year="1998",
)
_DEFERRED = _work(
    "deferred correction, by which the solver RKC4 has order four",
    "christlieb2010integral",
    "article",
    author="Christlieb, Andrew and Ong, Benjamin and Qiu, Jing-Mei",
    title="Integral deferred correction methods constructed with high order Runge-Kutta"
    " integrators",
    journal="Mathematics of Computation 79(270), 761-783",
    year="2010",
)
_BACKWARD = _work(
    "the solver BDF: backward differentiation of variable order",
    "brayton1972new",
    "article",
    author="Brayton, R. K. and Gustavson, F. G. and Hachtel, G. D.",
    title="A new efficient algorithm for solving differential-algebraic systems using implicit"
    " backward differentiation formulas",
    journal="Proceedings of the IEEE 60(1), 98-108",
    year="1972",
)
_CONJUGATE = _work(
    "the error of conjugate gradients, by which the solver BDF ends its linear solves",
    "strakos2002error",
    "article",
    author="Strakos, Z. and Tichy, P.",
    title="On error estimation in the conjugate gradient method and why it works in finite"
    " precision computations",
    journal="Electronic Transactions on Numerical Analysis 13, 56-80",
    year="2002",
)
_BY_SOLVER = {
    "BDF": (_BACKWARD, _CONJUGATE),
    "RKC2": (_CHEBYSHEV,),
    "RKC4": (_CHEBYSHEV, _DEFERRED),
    "AveragedMidpoint": (
        _work(
            "the solver AveragedMidpoint: means of a gradient over a step",
            "mclachlan1999geometric",
            "article",
            author="McLachlan, Robert I. and Quispel, G. R. W. and Robidoux, Nicolas",
            title="Geometric integration using discrete gradients",
            journal="Philosophical Transactions of the Royal Society A 357, 1021-1045",
            year="1999",
        ),
        _work(
            "solutions of discontinuous equations",
            "filippov1988differential",
            "book",
            author="Filippov, A. F.",
            title="Differential Equations with Discontinuous Righthand Sides",
            publisher="Kluwer",
            year="1988",
        ),
    ),
    "Bosh3": (
        _work(
            "the solver Bosh3",
            "bogacki1989pair",
            "article",
            author="Bogacki, P. and Shampine, L. F.",
            title="A 3(2) pair of Runge-Kutta formulas",
            journal="Applied Mathematics Letters 2(4), 321-325",
            year="1989",
        ),
    ),
    "Dopri8": (
        _work(
            "the solver Dopri8",
            "prince1981high",
            "article",
            author="Prince, P. J. and Dormand, J. R.",
            title="High order embedded Runge-Kutta formulae",
            journal="Journal of Computational and Applied Mathematics 7(1), 67-75",
            year="1981",
        ),
    ),
    "Tsit5": (
        _work(
            "the solver Tsit5",
            "tsitouras2011runge",
            "article",
            author="Tsitouras, Ch.",
            title="Runge-Kutta pairs of order 5(4) satisfying only the first column simplifying"
            " assumption",
            journal="Computers and Mathematics with Applications 62(2), 770-775",
            year="2011",
        ),
    ),
}

_POLYAK = _work(
    "heavy ball",
    "polyak1964some",
    "article",
    author="Polyak, B. T.",
    title="Some methods of speeding up the convergence of iteration methods",
    journal="USSR Computational Mathematics and Mathematical Physics 4(5), 1-17",
    year="1964",
)
_NESTEROV = _work(
    "Nesterov's method",
    "nesterov1983method",
    "article",
    author="Nesterov, Yu. E.",
    title="A method for solving the convex programming problem with convergence rate O(1/k^2)",
    journal="Soviet Mathematics Doklady 27(2), 372-376",
    year="1983",
)
_SU = _work(
    "the flow of Nesterov's method",
    "su2016differential",
    "article",
    author="Su, Weijie and Boyd, Stephen and Candès, Emmanuel J.",
    title="A differential equation for modeling Nesterov's accelerated gradient method: theory and"
    " insights",
    journal="Journal of Machine Learning Research 17(153), 1-43",
    year="2016",
)
_BU = _work(
    "momentum methods beside their flows on networks",
    "bu2021dynamical",
    "inproceedings",
    author="Bu, Zhiqi and Xu, Shiyun and Chen, Kan",
    title="A Dynamical View on Optimization Algorithms of Overparameterized Neural Networks",
    booktitle="International Conference on Artificial Intelligence and Statistics",
    year="2021",
)
_BY_KIND = {
    "HeavyBall": (_POLYAK, _BU),
    "HeavyBallFlow": (_POLYAK,),
    "Nesterov": (_NESTEROV, _BU),
    "NesterovConstant": (_NESTEROV,),
    "NesterovFlow": (_SU,),
}


def citations(results: Results) -> list[Citation]:
    """The works behind what this study used, each once."""
    found = list(_ALWAYS[:1])
    for member in (*results.runs, *results.flows):
        found += _BY_KIND.get(str(member.attributes.get("kind")), ())
    for member in results.flows:
        names = str(member.attributes.get("solver", "")).split(", ")
        found += [work for name in names for work in _BY_SOLVER.get(name, ())]
    found += _ALWAYS[1:]
    return list(dict.fromkeys(found))
