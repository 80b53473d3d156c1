"""How many cores this process may use."""

from __future__ import annotations


def usable_cores() -> int:
    """Of the machine's cores those that affinity and the control group's quota leave, at least one; a part
    of a core counts as one. `LOKY_MAX_CPU_COUNT` in the environment lowers it."""
    import joblib  # takes a while, and most processes never ask

    return int(joblib.cpu_count())
