"""`cnnexp guide`: the guide, in the terminal."""

from pathlib import Path

from cnnexp.commands.arguments import CommandParser
from cnnexp.config.keys import Key, find_keys
from cnnexp.console import say, show_markdown, table
from cnnexp.errors import UserError, nearest

TEXT = """\
The guide, a page a topic; on a terminal in a pager. Without a topic, the list of them. `guide keys` shows what each key
of the configuration means, its type, its range and its default."""

FOLDER = Path(__file__).resolve().parents[1] / "guide"
KEYS = "keys"
TOPICS = (  # in the order in which they are read
    "photos",
    "progression",
    "configuration",
    KEYS,
    "components",
    "little-data",
    "figures",
    "sweeps",
    "mlflow",
    "explain",
    "serving",
    "reproduce",
    "files",
    "promises",
    "benchmarks",
    "limits",
    "contributing",
)


def parser() -> CommandParser:
    """The arguments of `cnnexp guide`."""
    words = {"[TOPIC]": "a page", "[PART]": "with the topic keys: a part of the keys' names"}
    return CommandParser("guide", TEXT, words, ["sweeps", "keys learning_rate"])


def run(arguments: list[str]) -> int:
    """Show the list of topics, a page, or the keys.

    Raises:
        UserError: no such topic, or no such key.
    """
    topic, *rest = parser().parse(arguments).words or [None]
    if topic == KEYS:
        _show_keys(find_keys(" ".join(rest)))
        return 0
    if rest:
        raise UserError(f"{' '.join(arguments)}: give one topic, as `cnnexp guide {topic}`")
    if topic is None:
        table("", ["topic", ""], [[name, title(name)] for name in TOPICS], left=2)
        return 0
    if topic not in TOPICS:
        raise UserError(f"{topic}: no such topic; there are {', '.join(nearest(topic, list(TOPICS)))}")
    show_markdown(page(topic))
    return 0


def page(topic: str) -> str:
    """The page in Markdown."""
    return (FOLDER / f"{topic}.md").read_text(encoding="utf-8")


def title(topic: str) -> str:
    """The headline of a topic's page."""
    if topic == KEYS:
        return "What a key of the configuration means, its type, range and default"
    return page(topic).partition("\n")[0].removeprefix("# ")


def _show_keys(keys: list[Key]) -> None:
    for key in keys:
        say(f"{key.name} = {key.default}")
        say(f"    {key.doc}")
        say(f"    {', '.join(filter(None, [key.kind, key.limits, key.only]))}")
