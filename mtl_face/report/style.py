"""The style sheet of the report: light and dark, phone, screen and paper."""

CSS = """
:root {
  color-scheme: light dark;
  --text: #1d2329; --muted: #56606b; --page: #ffffff; --card: #f4f6f8; --line: #d3d9df;
  --notice: #fff3d6; --notice-line: #c98a12; --wrong: #b3361f; --share-of: .7;
  --first: #3b82c4; --second: #c8701a; --third: #808080;
}
@media screen and (prefers-color-scheme: dark) {
  :root {
    --text: #e4e8ec; --muted: #a0abb6; --page: #14181c; --card: #1e242a; --line: #39424b;
    --notice: #3a2f14; --notice-line: #d9a13a; --wrong: #ff9d85; --share-of: .6;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0 auto; padding: 1rem; max-width: 68rem; color: var(--text); background: var(--page);
  font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: anywhere;
}
h1 { font-size: 1.7rem; line-height: 1.2; margin: .5rem 0; }
h2 { font-size: 1.25rem; margin: 2.2rem 0 .6rem; border-bottom: 1px solid var(--line); }
h3 { font-size: 1.05rem; margin: 1.4rem 0 .5rem; }
p { max-width: 46rem; margin: .5rem 0; }
a { color: inherit; }
:focus-visible { outline: 2px solid var(--first); outline-offset: 2px; }
nav { display: flex; flex-wrap: wrap; gap: .2rem 1rem; font-size: .9rem; }
nav a { padding: .2rem 0; }
.notice {
  padding: .6rem .9rem; margin: 1rem 0; background: var(--notice);
  border-left: .3rem solid var(--notice-line);
}
.muted, figcaption, caption { color: var(--muted); font-size: .875rem; }
.scroll { overflow-x: auto; margin: .6rem 0; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
caption { text-align: left; padding-bottom: .2rem; }
/* as wide as the screen, not as the table that scrolls */
caption span { display: block; max-width: calc(100vw - 2rem); overflow-wrap: normal; }
th, td { padding: .25rem .6rem; border-bottom: 1px solid var(--line); text-align: right; }
th { font-weight: 600; overflow-wrap: normal; }
table.numbers td, table.numbers tbody th { white-space: nowrap; }
table.numbers { font-size: .875rem; }
table.wide { font-size: .8rem; }
table.wide th, table.wide td { padding: .25rem .4rem; }
th:first-child, table.words td, table.words th { text-align: left; vertical-align: top; }
.scroll > table.words th { min-width: 9rem; overflow-wrap: anywhere; }
tr.total th, tr.total td { font-weight: 700; }
tr.part th { font-weight: 400; padding-left: 1.6rem; }
table.confusion th, table.confusion td { padding: .3rem .4rem; font-size: .85rem; }
table.confusion td {
  text-align: center; line-height: 1.25;
  background: rgb(59 130 196 / calc(var(--share) * var(--share-of)));
}
table.confusion small { display: block; font-size: .75rem; }
.figures { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fit, minmax(16rem, 1fr)); }
.figures.two { grid-template-columns: repeat(auto-fit, minmax(max(16rem, 40%), 1fr)); }
figure { margin: 0; padding: .6rem; background: var(--card); border-radius: .4rem; }
section > figure { margin: 1rem 0; }
figure > svg { display: block; max-width: 100%; height: auto; margin: 0 auto; }
figure > svg * { stroke-linejoin: round; stroke-linecap: butt; }
.legend { display: flex; flex-wrap: wrap; gap: .2rem 1.2rem; font-size: .875rem; }
.legend svg { vertical-align: middle; }
.timeline { margin: .8rem 0; }
.strip { display: flex; gap: .5rem; margin: .3rem 0 .8rem; }
.strip svg { flex: 1; min-width: 0; height: 5.5rem; }
.axis, .frames { font-size: .75rem; line-height: 1.2; color: var(--muted); }
.axis {
  width: 3.4rem; margin: -.4em 0; flex: none; display: flex; flex-direction: column;
  justify-content: space-between; text-align: right;
}
.frames { display: flex; justify-content: space-between; padding-left: 3.9rem; }
.strip path, .legend path { fill: none; vector-effect: non-scaling-stroke; }
path.zero { stroke: var(--line); stroke-width: 1; }
path.truth { stroke: var(--second); stroke-width: 2; }
path.final { stroke: var(--first); stroke-width: 2; }
path.raw { stroke: var(--third); stroke-width: 1; stroke-opacity: .8; }
.strip path.band, .legend path.band { fill: var(--first); fill-opacity: .22; stroke: none; }
details { margin: 1rem 0; }
summary { cursor: pointer; padding: .4rem 0; font-weight: 600; }
.gallery {
  display: grid; gap: 1rem; grid-template-columns: repeat(auto-fill, minmax(17rem, 1fr));
}
.gallery .face img, .gallery .absent {
  display: block; width: 8rem; height: 8rem; object-fit: contain; margin: 0 auto .4rem;
}
.gallery .absent {
  border: 1px dashed var(--line); color: var(--muted); font-size: .8rem; text-align: center;
  padding-top: 3rem;
}
.tiles {
  display: grid; gap: .4rem; grid-template-columns: 1fr 1fr; max-width: 16rem; margin: 0 auto .4rem;
}
.tiles.wide { grid-template-columns: repeat(3, 1fr); max-width: 36rem; margin: 0; }
.tile { text-align: center; font-size: .75rem; line-height: 1.3; color: var(--muted); }
.tile img { display: block; width: 100%; height: auto; }
.gallery table { width: 100%; font-size: .85rem; color: var(--text); }
.gallery table td, .gallery table th { padding: .15rem .3rem; overflow-wrap: break-word; }
.wrong { color: var(--wrong); }
@media (max-width: 36rem) {
  body { padding: .6rem; }
  table { font-size: .8rem; }
  th, td { padding: .2rem .3rem; }
  tr.part th { padding-left: .9rem; }
  table.numbers tbody th { white-space: normal; min-width: 5.5rem; max-width: 8.5rem; }
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
  figure, tr, .notice, .tiles { break-inside: avoid; }
  .figures { grid-template-columns: 1fr 1fr; }
  .gallery { grid-template-columns: repeat(3, 1fr); }
  .scroll { overflow: visible; }
  table, table.numbers { font-size: 8pt; }
  table.wide { font-size: 6.5pt; }
  table.wide th, table.wide td { padding: 1pt 2pt; }
  caption span { max-width: none; }
  table.confusion td, .strip path { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
}
"""
