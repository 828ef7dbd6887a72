"""Quantities as people read them."""


def duration(seconds: float) -> str:
    """Return a time in its two largest units: ``3.2 s``, ``3 min 5 s``, ``2 h 3 min``."""
    if round(seconds, 1) < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def count(number: float) -> str:
    """Return a count as people say it: ``732``, ``48,300``, ``1.85 million``."""
    return f"{number / 1e6:,.2f} million" if abs(number) >= 1e6 else f"{number:,.0f}"


def byte_size(count: float) -> str:
    """Return bytes with a decimal unit, for example ``7.4 MB``."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
