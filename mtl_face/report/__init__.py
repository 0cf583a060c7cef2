"""The report of an evaluation: one HTML file that needs nothing else.

`write` composes it from the modules named `..._sections`, which turn metrics and tables into text;
`figures`, `curves`, `uncertainty_figures`, `timeline` and `attention_maps` draw, with `drawing`;
`gallery` picks frames and `cards` shows them; `html` knows the page and its escaping, `style` its
looks, `numbers` the scores with their intervals.
"""

from mtl_face.report.write import write_report

__all__ = ["write_report"]
