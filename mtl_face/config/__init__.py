"""Settings of an experiment.

The schema is the dataclasses of `schema.py`. A file of `configs/` starts from `default()`, a locked
`ml_collections.ConfigDict` made from them, changes what its experiment changes, and returns it from
`get_config()`. `load()` reads such a file, applies the command line's `--config.a.b=value`
overrides, checks every field and returns a frozen `Config`. The network takes its section of it,
`ModelConfig`; other parts take plain values.
"""

from mtl_face.config.check import parse_value, validate
from mtl_face.config.dotted import (
    ANY_NAME,
    common,
    default,
    differences,
    fields,
    flat,
    of_export,
    of_step,
    to_dict,
)
from mtl_face.config.load import load, load_config, load_values, shipped, split_override
from mtl_face.config.schema import (
    AFFECTS,
    AugmentationConfig,
    BackboneConfig,
    Config,
    DataConfig,
    DataSetConfig,
    LoraConfig,
    ModelConfig,
    OptimizerConfig,
)

__all__ = [
    "AFFECTS",
    "ANY_NAME",
    "AugmentationConfig",
    "BackboneConfig",
    "Config",
    "DataConfig",
    "DataSetConfig",
    "LoraConfig",
    "ModelConfig",
    "OptimizerConfig",
    "common",
    "default",
    "differences",
    "fields",
    "flat",
    "load",
    "load_config",
    "load_values",
    "of_export",
    "of_step",
    "parse_value",
    "shipped",
    "split_override",
    "to_dict",
    "validate",
]
