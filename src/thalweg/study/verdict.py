"""What a study found, in words with numbers, from its store alone."""

from .results import Results
from .sentences import Sentence
from .stages import STAGES


def verdict(results: Results) -> list[Sentence]:
    """The findings of a study: those about each run, then the others."""
    about_runs = [
        sentence
        for run in results.runs
        for stage in STAGES
        for sentence in stage.says_of(run, results)
    ]
    return about_runs + [sentence for stage in STAGES for sentence in stage.says(results)]
