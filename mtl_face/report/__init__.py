"""Pages of results: the report of an evaluation, the page of an audit. One HTML file each."""

from mtl_face.report.evaluation_page import Report, write_report

__all__ = ["Report", "write_report"]
