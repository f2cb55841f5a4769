"""Columns of the tables, and which of them a narrow terminal does without, the first first. Figures that are only shown
beside go before all of these."""

GAIN_INTERVAL, HOLM = "95 % of gain", "p Holm"
COSTS = ("time", "trainable", "time/point", "trainable/point")
DROPPED = (
    "trainable/point",
    "time/point",
    "published %",
    "trainable",
    "time",
    GAIN_INTERVAL,
    "fixed/broken",
    "95 % interval",
    "runs",
    "p",
    HOLM,
    "val %",
    "gain",
)
ACCURACIES = ("val %", "test %")
BEFORE = "p"  # of another figure than accuracy these go before the tests
DROPPED_OF_GRID = ("trainable", "time", "95 % interval", "runs", "test %", "p", HOLM)  # then keys, the last first


def dropped_of(metric: str) -> tuple[str, ...]:
    """Of a progression by this figure."""
    if metric == "acc":
        return DROPPED
    others = [name for name in DROPPED if name not in ACCURACIES]
    place = others.index(BEFORE)
    return (*others[:place], *ACCURACIES, *others[place:])


def order_in_words() -> str:
    """The order for `--help`."""
    return (
        f"of a grid go first other figures, {', '.join(DROPPED_OF_GRID)}, then the keys but one, the last first; of "
        f"a progression other figures, {', '.join(DROPPED)}; of one by another figure than accuracy "
        f"{' and '.join(ACCURACIES)} go before {BEFORE}"
    )
