"""How MLflow's UI shows an experiment: what it is, and two views of its runs with the columns that matter."""

import json
from collections.abc import Mapping
from typing import Any

from cnnexp.tracking.notes import NOTE_TAG

COLUMNS = (  # of the table of runs, beside name and time
    "metrics.`test/acc`",
    "metrics.`final/val_acc`",
    "tags.`variant`",
    "tags.`backbone`",
    "tags.`dataset`",
    "tags.`seed`",
    "metrics.`count/trainable_parameters`",
    "metrics.`time/total_s`",
)
WIDTHS = {"attributes.`Run Name`": 270, "runDateAndNestInfo": 130} | dict.fromkeys(COLUMNS, 110)
SORTED_BY = {  # a view's name -> what sorts it, downwards; MLflow nests children only where the start time does
    "Sweeps": "attributes.start_time",
    "Best first": "metrics.`final/val_acc`",
}
NOTE = """\
Image classification by `cnnexp`. A sweep is a parent run; its jobs are its children. *Views* has the newest sweeps \
and the best runs with their accuracies. `final/val_acc` is the validation accuracy of the weights that were kept; \
variants are chosen by it. `test/acc` is read once, at the end of a run."""


def experiment_tags() -> dict[str, str]:
    """The tags that MLflow's UI reads: the description, the kind of experiment, and the saved views."""
    tags = {NOTE_TAG: NOTE, "mlflow.experimentKind": "custom_model_development"}
    return tags | {f"mlflow.sharedViewState.{_key(name)}": _view(name, order) for name, order in SORTED_BY.items()}


def missing_tags(tags: Mapping[str, Any]) -> dict[str, str]:
    """Those of `experiment_tags` that an experiment with `tags` does not have."""
    return {key: value for key, value in experiment_tags().items() if key not in tags}


def view_links(address: str, experiment_id: str) -> dict[str, str]:
    """The URL of each view by its name, on the UI at `address`; and of the views' curves."""
    runs = f"{address}/#/experiments/{experiment_id}/runs?workflowType=machine_learning"
    links = {name: f"{runs}&viewStateShareKey={_key(name)}" for name in SORTED_BY}
    return links | {"Curves": f"{links['Best first']}&compareRunsMode=CHART"}


def _key(name: str) -> str:
    return name.lower().replace(" ", "-")


def _view(name: str, order: str) -> str:
    """A saved view as MLflow 3.17's UI writes it: a name, times in ms, and the state of the table as JSON text."""
    state = {
        "selectedColumns": COLUMNS,
        "columnOrder": list(WIDTHS),
        "columnWidths": WIDTHS,
        "orderByKey": order,
        "orderByAsc": False,
    }
    return json.dumps({"name": name, "createdAt": 0, "updatedAt": 0, "state": json.dumps(state)})
