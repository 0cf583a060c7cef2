"""Readers and writers of annotation files and submissions; `load` reads any kind of data set."""

from data_pipeline.formats.sources import SPLITS, USUAL_NAMES, load

__all__ = ["SPLITS", "USUAL_NAMES", "load"]
