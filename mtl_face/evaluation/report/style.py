"""The style sheet of the report: light and dark, phone, screen and paper."""

CSS = """
:root {
  color-scheme: light dark;
  --text: #1d2329; --muted: #5b6570; --page: #ffffff; --card: #f4f6f8; --line: #d3d9df;
  --notice: #fff3d6; --notice-line: #c98a12; --wrong: #b3361f;
}
@media (prefers-color-scheme: dark) {
  :root {
    --text: #e4e8ec; --muted: #a0abb6; --page: #14181c; --card: #1e242a; --line: #39424b;
    --notice: #3a2f14; --notice-line: #d9a13a; --wrong: #ff9d85;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0 auto; padding: 1rem; max-width: 62rem; color: var(--text); background: var(--page);
  font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: break-word;
}
h1 { font-size: 1.7rem; line-height: 1.2; margin: .5rem 0; }
h2 { font-size: 1.25rem; margin: 2.2rem 0 .6rem; border-bottom: 1px solid var(--line); }
h3 { font-size: 1.05rem; margin: 1.4rem 0 .5rem; }
p { max-width: 46rem; margin: .5rem 0; }
a { color: inherit; }
nav { display: flex; flex-wrap: wrap; gap: .2rem 1rem; font-size: .9rem; }
.notice {
  padding: .6rem .9rem; margin: 1rem 0; background: var(--notice);
  border-left: .3rem solid var(--notice-line);
}
.muted, figcaption, caption { color: var(--muted); font-size: .875rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: .4rem 0; }
caption { text-align: left; padding-bottom: .2rem; }
th, td { padding: .25rem .6rem; border-bottom: 1px solid var(--line); text-align: right; }
th { font-weight: 600; }
th:first-child, table.words td, table.words th { text-align: left; vertical-align: top; }
table.words td { overflow-wrap: anywhere; }
tr.total th, tr.total td { font-weight: 700; }
tr.part th { font-weight: 400; padding-left: 1.6rem; }
table.confusion th, table.confusion td { padding: .3rem .4rem; font-size: .85rem; }
table.confusion td {
  text-align: center; line-height: 1.25; background: rgb(59 130 196 / calc(var(--share) * .75));
}
table.confusion small { display: block; font-size: .72rem; opacity: .85; }
.figures { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fit, minmax(16rem, 1fr)); }
figure { margin: 0; padding: .6rem; background: var(--card); border-radius: .4rem; }
figure svg { display: block; max-width: 100%; height: auto; margin: 0 auto; }
figure svg * { stroke-linejoin: round; stroke-linecap: butt; }
.gallery {
  display: grid; gap: 1rem; grid-template-columns: repeat(auto-fill, minmax(17rem, 1fr));
}
.gallery img, .gallery .absent {
  display: block; width: 8rem; height: 8rem; object-fit: contain; margin: 0 auto .4rem;
}
.gallery .absent {
  border: 1px dashed var(--line); color: var(--muted); font-size: .8rem; text-align: center;
  padding-top: 3rem;
}
.gallery table { width: 100%; font-size: .85rem; color: var(--text); }
.gallery td, .gallery th { padding: .15rem .3rem; }
.wrong { color: var(--wrong); }
@media (max-width: 36rem) {
  body { padding: .6rem; }
  table { font-size: .8rem; }
  th, td { padding: .2rem .3rem; }
  tr.part th { padding-left: .9rem; }
}
@media print {
  :root {
    color-scheme: light;
    --text: #000000; --muted: #444444; --page: #ffffff; --card: #ffffff; --line: #bbbbbb;
    --notice: #ffffff; --wrong: #8a1f0b;
  }
  body { max-width: none; padding: 0; font-size: 10pt; }
  nav { display: none; }
  h2, h3, caption { break-after: avoid; }
  figure, tr, .notice { break-inside: avoid; }
  .scroll { overflow: visible; }
  table.confusion td { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
}
"""
