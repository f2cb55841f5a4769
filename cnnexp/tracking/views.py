"""How MLflow's UI shows an experiment: what it is, and two views of its runs with the columns that matter."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from cnnexp.metrics.names import TOTAL_SECONDS, TRAIN_ACC, TRAIN_LOSS, TRAINABLE_PARAMETERS, VAL_ACC, VAL_LOSS
from cnnexp.tracking.notes import NOTE_TAG

COLUMNS = (  # of the table of runs, beside name and time
    "metrics.`test/acc`",
    "metrics.`final/val_acc`",
    "tags.`variant`",
    "tags.`backbone`",
    "tags.`dataset`",
    "tags.`seed`",
    f"metrics.`{TRAINABLE_PARAMETERS}`",
    f"metrics.`{TOTAL_SECONDS}`",
)
TAGGED = ("seed", "dataset", "augmentation", "backbone", "head", "optimizer")  # keys and groups with a tag
MOST_SWEPT = 8  # columns
CURVES = {"val": (VAL_ACC, VAL_LOSS), "train": (TRAIN_ACC, TRAIN_LOSS)}  # the first charts, by their sections
VIEW = "mlflow.sharedViewState."
GRID_KEY = re.compile(r"(?:^| )\+*([A-Za-z_][\w./]*)=")
SORTED_BY = {  # a view's name -> what sorts it, downwards; MLflow nests children only where the start time does
    "Sweeps": "attributes.start_time",
    "Best first": "metrics.`final/val_acc`",
}
NOTE = """\
Image classification by `cnnexp`. A sweep is a parent run; its jobs are its children. *Views* has the newest sweeps \
and the best runs with their accuracies. `final/val_acc` is the validation accuracy of the weights that were kept; \
variants are chosen by it. `test/acc` is read once, at the end of a run."""


def experiment_tags(swept: Sequence[str] = ()) -> dict[str, str]:
    """The tags that MLflow's UI reads: the description, the kind of experiment, and the saved views.

    Args:
        swept: keys that get a column each, beside those of every view.
    """
    tags = {NOTE_TAG: NOTE, "mlflow.experimentKind": "custom_model_development"}
    return tags | {f"{VIEW}{_key(name)}": _view(name, order, swept) for name, order in SORTED_BY.items()}


def missing_tags(tags: Mapping[str, Any], swept: Sequence[str] = ()) -> dict[str, str]:
    """Those of `experiment_tags` that an experiment with `tags` does not have, or of whose views it has older ones."""
    wanted = experiment_tags(swept).items()
    return {key: value for key, value in wanted if key not in tags or (key.startswith(VIEW) and tags[key] != value)}


def swept_keys(sweeps: Iterable[Mapping[str, str]]) -> list[str]:
    """What sweeps vary that every view does not show anyway, at most MOST_SWEPT keys, those of the first sweeps first.

    Args:
        sweeps: the tags of their parent runs.
    """
    found: dict[str, None] = {}
    for tags in sweeps:
        keys = tags["sweep.keys"].split() if "sweep.keys" in tags else GRID_KEY.findall(tags.get("sweep.grid", ""))
        found.update(dict.fromkeys(keys))
    return [key for key in found if _column(key) not in (None, *COLUMNS)][:MOST_SWEPT]


def _column(key: str) -> str | None:
    if key in ("experiment", "sweep", "name"):
        return None  # the variant says it
    if key in TAGGED:
        return f"tags.`{key}`"
    return f"params.`{'freeze_policy.mode' if key == 'freeze_policy' else key}`"


def view_links(address: str, experiment_id: str) -> dict[str, str]:
    """The URL of each view by its name, on the UI at `address`; and of the views' curves."""
    runs = f"{address}/#/experiments/{experiment_id}/runs?workflowType=machine_learning"
    links = {name: f"{runs}&viewStateShareKey={_key(name)}" for name in SORTED_BY}
    return links | {"Curves": f"{links['Best first']}&compareRunsMode=CHART"}


def _key(name: str) -> str:
    return name.lower().replace(" ", "-")


def _view(name: str, order: str, swept: Sequence[str]) -> str:
    """A saved view as MLflow 3.17's UI writes it: a name, times in ms, and the state of the table as JSON text."""
    added = [column for key in swept if (column := _column(key))]
    columns = [*COLUMNS[:2], *added, *COLUMNS[2:]]
    widths = {"attributes.`Run Name`": 270, "runDateAndNestInfo": 130} | dict.fromkeys(columns, 110)
    state = {
        "selectedColumns": columns,
        "columnOrder": list(widths),
        "columnWidths": widths,
        "orderByKey": order,
        "orderByAsc": False,
        "compareRunSections": [_section(name) for name in CURVES],
        "compareRunCharts": [_line_chart(section, name) for section, names in CURVES.items() for name in names],
        "isAccordionReordered": True,  # else sections are sorted by name, and bars of final figures come first
    }
    return json.dumps({"name": name, "createdAt": 0, "updatedAt": 0, "state": json.dumps(state)})


def _section(name: str) -> dict[str, Any]:
    return {"uuid": f"section-{name}", "name": name, "display": True, "isReordered": False}


def _line_chart(section: str, name: str) -> dict[str, Any]:
    """A figure by epoch, as MLflow's UI describes its own charts."""
    return {
        "type": "LINE",
        "uuid": f"chart-{name}",
        "metricSectionId": f"section-{section}",
        "metricKey": name,
        "displayName": name,
        "isGenerated": True,
        "deleted": False,
        "runsCountToCompare": 10,
        "lineSmoothness": 0,
        "xAxisKey": "step",
        "xAxisScaleType": "linear",
        "scaleType": "linear",
        "selectedXAxisMetricKey": "",
        "yAxisKey": "metric",
        "yAxisExpressions": [],
        "range": {},
        "useGlobalXaxisKey": True,
        "useGlobalLineSmoothing": True,
    }
