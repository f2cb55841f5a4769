"""Figures in words, as tables and pictures show them; "-" where there is none."""

from collections.abc import Sequence

from cnnexp.formats import number


def percent(share: float | None, decimals: int, spread: float | None = None) -> str:
    """0.9593 -> `95.9`, with a spread `95.9 ± 0.2`."""
    if share is None:
        return "-"
    return f"{100 * share:.{decimals}f}" + ("" if spread is None else f" ± {100 * spread:.{decimals}f}")


def points(gain: float | None, decimals: int) -> str:
    """0.079 -> `+7.9`"""
    return "-" if gain is None else f"{100 * gain:+.{decimals}f}".replace("-", "\N{MINUS SIGN}")


def p_text(p_value: float | None) -> str:
    """0.0312 -> `0.031`; tiny ones -> `<0.001`"""
    if p_value is None:
        return "-"
    return "<0.001" if p_value < 0.001 else f"{p_value:.3f}" if p_value < 0.1 else f"{p_value:.2f}"


def duration(seconds: float | None) -> str:
    """4.2 -> `4.2 s`, 200 -> `3 min 20 s`, 7500 -> `2 h 05 min`"""
    if seconds is None:
        return "-"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(round(whole / 60), 60)
    return f"{hours} h {minutes:02d} min"


def big(count: float | None) -> str:
    """257 -> `257`, 65_812 -> `65.8 k`, 16_812_353 -> `16.8 M`"""
    if count is None:
        return "-"
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= 0.9995 * size:
            return f"{count / size:.1f} {letter}"
    return f"{count:.0f}"


def setting(value: str) -> str:
    """A setting, a long number with four digits: 0.000123456 -> `0.0001235`"""
    found = number(value, float)
    return value if found is None or len(value) <= 6 else f"{found:.4g}"


def figure(monitor: str, value: float | None, decimals: int, spread: float | None = None) -> str:
    """A figure of that name: an accuracy in percent, a loss as `0.4321`."""
    if value is None or monitor.endswith("acc"):
        return percent(value, decimals, spread)
    return f"{value:.4f}" + ("" if spread is None else f" ± {spread:.4f}")


def difference(monitor: str, value: float | None, decimals: int) -> str:
    """Of two such figures: `+7.9`, of losses `+0.0321`"""
    if value is None or monitor.endswith("acc"):
        return points(value, decimals)
    return f"{value:+.4f}".replace("-", "\N{MINUS SIGN}")


def heading(monitor: str) -> str:
    """The head of its column: `val %`, `val loss`, `val balanced_acc %`"""
    return monitor.replace("/acc", "").replace("/", " ") + " %" * monitor.endswith("acc")


def short_keys(keys: Sequence[str]) -> list[str]:
    """Dotted keys by their last part, where no two share it."""
    ends = [key.rpartition(".")[2] for key in keys]
    return [end if ends.count(end) == 1 else key for key, end in zip(keys, ends, strict=True)]
