"""Third submission of the paper: the mean of the first two.

Run:     python run.py ensemble --config=configs/paper_ensemble.py --output=mean.parquet
         with --workdirs and the folders of two evaluated runs, of configs/paper.py and
         configs/paper_mixup.py. Each is smoothed, then their mean is taken. To score it:
         python run.py evaluate --predictions=mean.parquet --truth=ANNOTATIONS
Cost:    seconds, without a GPU.
Expect:  the paper gives no validation score of it. Not measured yet.
"""

from ml_collections import config_dict

from . import paper


def get_config() -> config_dict.ConfigDict:
    """The smoothing of the first two; nothing else is used."""
    settings = paper.get_config()
    settings.name = "paper_ensemble"
    return settings
