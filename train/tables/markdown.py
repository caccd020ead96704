"""Cells and rows of Markdown tables."""


def row(*cells: object) -> str:
    return "| " + " | ".join(str(c) for c in cells) + " |"


def head(*cells: str) -> list[str]:
    return [row(*cells), row(*["---"] * len(cells))]


def percent(metric: dict) -> str:
    """`76.7 (72.9 to 80.3)` of a share with its interval, or that it has no value."""
    low, high = metric["ci95"]
    if metric["value"] is None:
        return "none predicted"
    return f"{100 * metric['value']:.1f} ({100 * low:.1f} to {100 * high:.1f})"


def points(change: dict) -> str:
    """`+1.6 (-1.1 to +4.3)` of a difference of shares, in percentage points."""
    low, high = change["ci95"]
    return f"{100 * change['value']:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"


def mean_and_range(shares: list[float]) -> str:
    """`79.1 (78.3 to 79.8)`, in percent."""
    mean = sum(shares) / len(shares)
    return f"{100 * mean:.1f} ({100 * min(shares):.1f} to {100 * max(shares):.1f})"
