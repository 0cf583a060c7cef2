"""Fixtures of small exports."""

from export_cases import exported_folder, folder, form  # noqa: F401
