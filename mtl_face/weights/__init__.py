"""Weights as files: reading those that a run starts from, and those that it leaves."""

from mtl_face.weights.backbone import LoadedBackbone, load_backbone

__all__ = ["LoadedBackbone", "load_backbone"]
