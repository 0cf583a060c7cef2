"""The packages: configs/ is installed as `mtl_face.configs`. All else is in pyproject.toml."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["mtl_face*", "data_pipeline*"]), "mtl_face.configs"],
    package_dir={"mtl_face.configs": "configs"},
)
