"""What a study found, in words with numbers, from its store alone."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from .results import Results
from .sentences import Sentence, who
from .stages import STAGES

# What one line about a run tells, in this order.
_TOPICS = ("distance to flow", "stability", "tangent kernel")
_SEVERITY = {"good": 0, "notice": 1, "warning": 2}


def verdict(results: Results) -> list[Sentence]:
    """The findings of a study: those about each run, then the others."""
    about_runs = [
        dataclasses.replace(sentence, run=run.name, subject=who(run), stage=stage.name)
        for run in results.runs
        for stage in STAGES
        for sentence in stage.says_of(run, results)
    ]
    others = [
        dataclasses.replace(sentence, stage=stage.name)
        for stage in STAGES
        for sentence in stage.says(results)
    ]
    return about_runs + others


def headlines(found: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """One line for each run, from the findings as they are stored, and how good the news is.

    None for a store that was written before findings had short forms.
    """
    lines = []
    for run in dict.fromkeys(s.get("run", "") for s in found):
        by_topic = {s["topic"]: s for s in found if run and s.get("run") == run}
        told = [by_topic[topic] for topic in _TOPICS if topic in by_topic]
        short = [s["short"] for s in told if s["short"]]
        if short:
            worst = max(told, key=lambda s: _SEVERITY[s["level"]])
            text = f"{told[0]['subject']}: {', '.join(short)}."
            lines.append({"text": text, "level": worst["level"]})
    return lines
