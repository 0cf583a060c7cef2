"""`run.py prepare --audit`: a report on the rows, labels and images of a data set."""

import argparse
import dataclasses
import functools
import json
import os
import time
from pathlib import Path

import numpy as np

from data_pipeline import audit
from data_pipeline.audit_findings import SEVERITIES
from mtl_face import config as config_lib
from mtl_face.cli.progress import Progress
from mtl_face.files import replacing
from mtl_face.report import audit_page
from mtl_face.run import datasets
from mtl_face.run.every_split import TRAIN, VALIDATION, every_split
from mtl_face.run.workdir import make_folder
from mtl_face.tables import FrameTable

JSON_FILE = "audit.json"
PAGE_FILE = "audit.html"


def run(config: config_lib.Config, options: argparse.Namespace) -> int:
    """Audits the data that a config names; makes the embedded data set first if it is absent.

    Args:
        config: the settings; only those of `data` matter.
        options: `output`.

    Returns:
        Exit status 0, whatever the audit found.

    Raises:
        UserError: the data cannot be read, or the report not be written.
    """
    data = config.data
    splits, identities = _read(data)
    for split, table in splits.items():
        print(f"{split}: {datasets.describe_counts(table.counts())}")
    root = datasets.ensure_data(data, print)
    folder = make_folder((options.output or root / "audit").expanduser().resolve())
    begin = time.perf_counter()
    report = audit.audit(
        splits,
        image_size=data.image_size,
        identities=identities,
        pairs=[
            (first, second)
            for first in splits
            for second in splits
            if first.endswith(TRAIN) and second.endswith(VALIDATION)
        ],
        workers=os.cpu_count() or 1,
        progress=Progress("images"),
    )
    seconds = time.perf_counter() - begin
    with replacing(folder / JSON_FILE) as temporary:
        temporary.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    page = audit_page.compose(report, title=f"Audit of {config.name}", where=str(root))
    with replacing(folder / PAGE_FILE) as temporary:
        temporary.write_text(page, encoding="utf-8")
    print(summary(report))
    images = report["images"]
    print(
        f"audited {images:,} images in {seconds:.1f} s"
        + (f" ({1000 * seconds / images:.2f} s per 1,000)" if images else "")
    )
    print(f"report: {folder / PAGE_FILE}")
    print(f"the same as data: {folder / JSON_FILE}")
    print("next: mend what is listed as error, then python run.py train with the same --config")
    return 0


def summary(report: dict) -> str:
    """The findings as text, gravest first."""
    lines = []
    for finding in report["findings"]:
        lines.append(f"{finding['severity']}: {finding['what']}")
        lines += [f"    {example}" for example in finding["examples"][:3]]
        lines.append(f"  -> {finding['remedy']}")
    counts = {
        severity: sum(finding["severity"] == severity for finding in report["findings"])
        for severity in SEVERITIES
    }
    lines.append("found: " + ", ".join(f"{name} {count}" for name, count in counts.items()))
    return "\n".join(lines)


def _read(
    data: config_lib.DataConfig,
) -> tuple[dict[str, FrameTable], dict[tuple[str, str], str]]:
    """The splits of every data set, and who is seen in their videos as far as known."""
    splits: dict[str, FrameTable] = {}
    identities: dict[tuple[str, str], str] = {}
    for part in every_split(data):
        say = functools.partial(print, f"{part.label}:")
        table = datasets.load_labels(part.settings, part.root, part.split, say)
        names = np.full(len(table), part.name, object)  # two may be of one kind
        splits[part.label] = dataclasses.replace(table, dataset=names)
        for video, identity in _identities(part.root).items():
            identities[part.name, video] = f"{part.name}: {identity}"
    return splits, identities


def _identities(root: Path) -> dict[str, str]:
    """Who is seen in each video, if the data set's description says so."""
    from data_pipeline.rendered_faces.describe import read_description

    videos = (read_description(root) or {}).get("videos")
    if not isinstance(videos, dict):
        return {}
    return {
        name: f"identity {about['identity']}"
        for name, about in videos.items()
        if isinstance(about, dict) and "identity" in about
    }
