"""Measurements that are compared: taken in turn, told as medians with their spread."""

import statistics


def alternate(runs, rounds):
    """Call each function once a round; return name -> its results.

    Every second round is in reverse, so that a machine that becomes slower affects all alike.
    """
    results = {name: [] for name in runs}
    for number in range(rounds):
        for name in list(runs)[:: -1 if number % 2 else 1]:
            results[name].append(runs[name]())
    return results


def spread(values, form=".2f"):
    """Return the median with the least and the largest value as text."""
    return f"{statistics.median(values):{form}} ({min(values):{form}} to {max(values):{form}})"
