"""The report of an evaluation: one HTML file that needs nothing else.

`write` composes it; `html` knows the page and its escaping, `style` its looks, `figures` draws,
`gallery` picks and captions frames, `sections` turns metrics into tables.
"""

from mtl_face.evaluation.report.write import write_report

__all__ = ["write_report"]
