"""What the packaged geometry model reaches on rendered people it never saw, and on pairs of photos.

    python run.py prepare --config=geometry --config.data.root=FOLDER
    python -m benchmarks.geometry_model FOLDER [--pairs=PHOTOS] [--model=geometry]

FOLDER is the data set that the model was trained on. Its test split is used, whose people are in
no other split, with true labels. PHOTOS holds pictures `<person>_neutral.jpg` and
`<person>_smiling.jpg` of real people, as the Face Research Lab London Set (DeBruine and Jones 2017,
doi 10.6084/m9.figshare.5047666, CC BY 4.0) renamed; valence, AU6, AU12 and the probability of
happiness should be higher in the second. Prints the tables of docs/geometry_model.md.

Letters: N faces, P people, V mesh points, A action units.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sklearn.metrics import f1_score, roc_auc_score

import mtl_face
from data_pipeline.rendered_faces import plan
from data_pipeline.rendered_faces.head import sample_shape
from mtl_face.evaluation.measures import concordance
from mtl_face.faces import geometry
from mtl_face.faces.crop_mesh import mesh_of_crops
from mtl_face.faces.detect import FaceFinder
from mtl_face.inference.baseline import Baselines, neutrality
from mtl_face.inference.predictor import Predictor
from mtl_face.tables import PredictionTable
from mtl_face.tasks import AU_NAMES, EXPRESSION_NAMES

Floats = NDArray[np.floating]
AU6, AU12 = AU_NAMES.index("au6"), AU_NAMES.index("au12")
HAPPINESS = EXPRESSION_NAMES.index("Happiness")

Rows = list[tuple[str, dict[str, float]]]


def scores(truth: dict[str, Any], answers: PredictionTable, rows: NDArray[np.bool_]) -> Any:
    """Mean AU AUC, expression macro F1, CCC of valence and of arousal over some rows."""
    au_NA, logit_NA = truth["au"][rows], answers.au_logits[rows]
    return {
        "AU AUC": float(
            np.mean([roc_auc_score(*pair) for pair in zip(au_NA.T, logit_NA.T, strict=True)])
        ),
        "expression F1": f1_score(
            truth["expression"][rows], answers.expression[rows], average="macro", zero_division=0
        ),
        "valence CCC": concordance(truth["va"][rows, 0], answers.valence[rows]),
        "arousal CCC": concordance(truth["va"][rows, 1], answers.arousal[rows]),
    }


def read_truth(folder: Path) -> dict[str, Any]:
    """Labels and videos of the test split, a row an image."""
    lines = (folder / "test_set_truth.txt").read_text().splitlines()[1:]
    rows = sorted({line.split(",")[0]: line.split(",")[1:] for line in lines}.items())
    value_NC = np.asarray([values for _, values in rows], np.float64)
    return {
        "image": [image for image, _ in rows],
        "video": np.asarray([image.rsplit("/", 1)[0] for image, _ in rows]),
        "va": value_NC[:, :2],
        "expression": value_NC[:, 2].astype(int),
        "au": value_NC[:, 3:].astype(int),
    }


def groups(folder: Path, videos: NDArray[np.str_]) -> dict[str, NDArray[np.bool_]]:
    """Rows of each group of people, by the shapes that their heads were mixed of."""
    about = json.loads((folder / "dataset.json").read_text())
    seed, by_video = about["arguments"]["seed"], about["videos"]
    shapes = {
        name: sample_shape(plan.stream(seed, plan.IDENTITY, by_video[name]["identity"]))
        for name in np.unique(videos).tolist()
    }
    of: dict[str, Callable[[Any], bool]] = {
        "mostly female": lambda shape: shape.masculine < 0.5,
        "mostly male": lambda shape: shape.masculine >= 0.5,
        "young": lambda shape: shape.old < 0.3,
        "old": lambda shape: shape.old >= 0.3,
        **{
            f"mostly {name}": lambda shape, index=index: np.argmax(shape.ancestry) == index
            for index, name in enumerate(("African", "Asian", "Caucasian"))
        },
    }
    return {
        group: np.asarray([test(shapes[video]) for video in videos.tolist()])
        for group, test in of.items()
    }


def at_rest(
    model: Predictor, point_NV3: Floats, person_N: NDArray[np.int64]
) -> tuple[Floats, PredictionTable]:
    """Each person's points at rest by the rule of `inference.baseline`, and plain answers."""
    alone = answer(model, point_NV3)
    known = Baselines()
    known.add(person_N, point_NV3, neutrality(alone))
    return known.known(person_N)[0], alone


def answer(model: Predictor, point_NV3: Floats, baseline_NV3: Floats | None = None) -> Any:
    """Answers to normalised points."""
    if baseline_NV3 is None:
        baseline_NV3 = np.zeros_like(point_NV3)
    return model.predict_arrays({"points": point_NV3, "baseline": baseline_NV3.astype(np.float32)})


def rendered(model: Predictor, folder: Path) -> Rows:
    """Scores on the test split, by what is known of the person."""
    truth = read_truth(folder)
    crops = [Image.open(folder / "cropped_aligned" / image) for image in truth["image"]]
    mesh_NV3 = mesh_of_crops(np.stack([np.asarray(crop.convert("RGB")) for crop in crops]))
    point_NV3 = geometry.normalise(mesh_NV3)
    person_N = np.unique(truth["video"], return_inverse=True)[1]
    rest_NV3, alone = at_rest(model, point_NV3, person_N)
    neutral_N = (truth["expression"] == 0) & ~truth["au"].any(axis=1)
    mean_NV3, true_NV3 = np.zeros_like(point_NV3), np.zeros_like(point_NV3)
    has_neutral_N = np.zeros(len(point_NV3), bool)
    for person in np.unique(person_N):
        rows_N = person_N == person
        mean_NV3[rows_N] = point_NV3[rows_N].mean(axis=0)
        if (rows_N & neutral_N).any():
            has_neutral_N |= rows_N
            true_NV3[rows_N] = point_NV3[np.flatnonzero(rows_N & neutral_N)[0]]
    every_N = np.ones(len(point_NV3), bool)
    beside = answer(model, point_NV3, rest_NV3)
    result: Rows = [
        ("one picture", scores(truth, alone, every_N)),
        (
            "beside the mean of the person's pictures",
            scores(truth, answer(model, point_NV3, mean_NV3), every_N),
        ),
        ("beside the person at rest, as found by itself", scores(truth, beside, every_N)),
        (
            "beside one neutral picture",
            scores(truth, answer(model, point_NV3, true_NV3), has_neutral_N),
        ),
    ]
    for group, rows_N in groups(folder, truth["video"]).items():
        result.append(
            (f"{group} ({len(np.unique(person_N[rows_N]))} videos)", scores(truth, beside, rows_N))
        )
    units = {
        name: float(roc_auc_score(truth["au"][:, index], beside.au_logits[:, index]))
        for index, name in enumerate(AU_NAMES)
    }
    return [*result, ("AUC of each unit, beside the person at rest", units)]


def pairs(model: Predictor, folder: Path) -> Rows:
    """Share of people whose second picture has more of it, by what is known of the person."""
    finder = FaceFinder()
    mesh: list[list[Floats]] = []
    for path in sorted(folder.glob("*_neutral.jpg")):
        two = [path, path.with_name(path.name.replace("_neutral", "_smiling"))]
        faces = [finder(Image.open(picture).convert("RGB"))[:1] for picture in two]
        if all(faces):
            mesh.append([one.mesh for (one,) in faces])
        else:
            print(f"no face in one of {two[0].name}, {two[1].name}")
    point_PTV3 = geometry.normalise(np.concatenate(mesh)).reshape(len(mesh), 2, -1, 3)
    flat_NV3 = point_PTV3.reshape(-1, *point_PTV3.shape[2:])
    person_N = np.repeat(np.arange(len(mesh)), 2)
    means = np.repeat(point_PTV3.mean(axis=1), 2, axis=0)
    neutral = np.repeat(point_PTV3[:, 0], 2, axis=0)
    rest, _ = at_rest(model, flat_NV3, person_N)
    result = []
    for name, baseline in (
        ("one picture", None),
        ("beside the mean of the person's pictures", means),
        ("beside the person at rest, as found by itself", rest),
        ("beside one neutral picture", neutral),
    ):
        said = answer(model, flat_NV3, baseline)
        value = {
            "valence": said.valence,
            "AU6": said.au_logits[:, AU6],
            "AU12": said.au_logits[:, AU12],
            "happiness": said.expression_probabilities[:, HAPPINESS],
        }
        shares = {key: float((column[1::2] > column[::2]).mean()) for key, column in value.items()}
        truth = np.tile([0, 1], len(mesh))
        shares |= {
            f"{key} AUC": float(roc_auc_score(truth, column)) for key, column in value.items()
        }
        result.append((f"{name} ({len(mesh)} people)", shares))
    return result


def show(title: str, rows: Rows) -> None:
    """Prints rows as tables in Markdown, one for each set of columns."""
    print(f"\n{title}\n")
    before: list[str] = []
    for name, values in rows:
        if list(values) != before:
            before = list(values)
            print(f"| | {' | '.join(before)} |\n|{'---|' * (len(before) + 1)}")
        print(f"| {name} | {' | '.join(f'{value:.2f}' for value in values.values())} |")


def main() -> None:
    """Reads the command line, prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="the data set of rendered faces")
    parser.add_argument("--pairs", type=Path, help="folder of pairs of photographs")
    parser.add_argument("--model", default="geometry")
    options = parser.parse_args()
    model = mtl_face.load(options.model)
    show("Rendered people, test split", rendered(model, options.folder))
    if options.pairs:
        show("Photographs, neutral and smiling", pairs(model, options.pairs))


if __name__ == "__main__":
    main()
