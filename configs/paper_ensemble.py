r"""Third submission of the paper: the mean of the first two.

Run:     python run.py ensemble --config=configs/paper_ensemble.py \
             --workdirs runs/paper runs/paper_mixup --output=runs/paper_ensemble.parquet
         with the folders of two evaluated runs, of configs/paper.py and configs/paper_mixup.py.
         Each is smoothed, then their mean is taken. Score it with
         python run.py evaluate --predictions=runs/paper_ensemble.parquet --truth=ANNOTATIONS
Cost:    seconds, without a GPU.
Expect:  the paper gives no validation score of it. Not measured yet.
"""

from ml_collections import config_dict

from configs import paper


def get_config() -> config_dict.ConfigDict:
    """The smoothing of the first two; nothing else is used."""
    settings = paper.get_config()
    settings.name = "paper_ensemble"
    settings.data.root = "."  # nothing is read from it
    return settings
