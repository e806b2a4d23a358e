"""Looks of a load test's page, and the script that draws its figures in the colours of the reader's screen."""

STYLE = """
:root { color-scheme: light dark; --page: #f5f6f8; --card: #fff; --text: #1b1f24; --soft: #59636e; --line: #d9dee4;
  --good: #12703a; --bad: #b4231f; --warn: #8a5300; --good-back: #e3f5ea; --bad-back: #fdeae9; --warn-back: #fff3d6; }
@media screen and (prefers-color-scheme: dark) { :root { --page: #12161b; --card: #1b2128; --text: #e6e9ed;
  --soft: #9aa5b1; --line: #343c46; --good: #6fd69b; --bad: #ff9a94; --warn: #f2c067; --good-back: #16301f;
  --bad-back: #3a1c1b; --warn-back: #35290f; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--text); font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 16px; }
header, section { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 16px 20px;
  margin: 0 0 16px; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: 0 0 4px; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 0 0 4px; }
h3 { font-size: 1rem; margin: 20px 0 0; overflow-wrap: anywhere; }
p { margin: 4px 0 10px; overflow-wrap: anywhere; }
.soft, figcaption { color: var(--soft); font-size: .92rem; }
.summary { font-size: 1.15rem; font-weight: 600; margin: 10px 0; }
.badge { display: inline-block; border-radius: 6px; padding: 2px 12px; font-weight: 700; }
.good { color: var(--good); } .bad { color: var(--bad); } .warn { color: var(--warn); }
.badge.good, .note.good { background: var(--good-back); } .badge.bad, .note.bad { background: var(--bad-back); }
.badge.warn, .note.warn { background: var(--warn-back); }
.note { border-left: 5px solid; border-radius: 6px; padding: 10px 14px; margin: 12px 0; }
.note > * { color: var(--text); } .note > strong { color: inherit; }
.note ul, ul.checks { margin: 6px 0 0; padding-left: 20px; overflow-wrap: anywhere; }
dl { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 8px 20px; margin: 12px 0 0; }
dt { color: var(--soft); font-size: .82rem; } dd { margin: 0; overflow-wrap: anywhere; }
.wide { overflow-x: auto; margin: 10px 0; }
table { border-collapse: collapse; width: 100%; font-size: .92rem; font-variant-numeric: tabular-nums; }
th, td { text-align: left; vertical-align: top; padding: 6px 12px 6px 0; border-bottom: 1px solid var(--line); }
th { color: var(--soft); font-weight: 600; font-size: .82rem; vertical-align: bottom; }
.n { text-align: right; white-space: nowrap; }
td.long { min-width: 14em; overflow-wrap: anywhere; }
code { font: .92em ui-monospace, monospace; overflow-wrap: anywhere; }
td code { display: inline-block; min-width: 9em; }
bdi { unicode-bidi: isolate; }
tr.binding td { background: var(--warn-back); font-weight: 600; }
summary { cursor: pointer; color: var(--soft); padding: 4px 0; }
figure { margin: 16px 0 0; }
.drawing { width: 100%; min-height: 240px; }
@media (max-width: 600px) { main { padding: 8px; } header, section { padding: 12px; } }
@media print { body { background: none; font-size: 10pt; } main { max-width: none; padding: 0; }
  header, section { border: 0; padding: 0; margin: 0 0 14pt; } .wide { overflow: visible; }
  figure, tr, dl, .note { break-inside: avoid; } h2, h3 { break-after: avoid; }
  .badge, .note, tr.binding td { print-color-adjust: exact; } td, th { padding-right: 6pt; font-size: 8pt; }
  td code { min-width: 0; } .modebar { display: none !important; } }
"""

SCRIPT = """
(() => {
  "use strict";
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const config = { responsive: true, displaylogo: false, modeBarButtonsToRemove: ["select2d", "lasso2d"] };
  const PAPER_WIDTH = 680;

  function colours(isDark) {
    const [text, line, back] = isDark ? ["#e6e9ed", "#343c46", "#1b2128"] : ["#1b1f24", "#d9dee4", "#ffffff"];
    return { text, line, back };
  }

  function themed(layout, { text, line, back }) {
    const changes = { "font.color": text, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      "hoverlabel.bgcolor": back, "hoverlabel.font.color": text, "hoverlabel.bordercolor": line };
    for (const axis of Object.keys(layout).filter((key) => /^[xy]axis[0-9]*$/.test(key))) {
      for (const part of ["gridcolor", "linecolor", "zerolinecolor"]) changes[axis + "." + part] = line;
    }
    return changes;
  }

  const places = Object.keys(figures).map((id) => document.getElementById(id));
  const drawn = places.map(async (place) => {
    try {
      const { data, layout } = figures[place.id];
      await Plotly.newPlot(place, data, layout, config);
      await Plotly.relayout(place, themed(layout, colours(dark.matches)));
    } catch (error) {
      place.textContent = "This figure could not be drawn: " + error;
      console.error(error);
    }
  });
  Promise.all(drawn).then(() => { document.documentElement.dataset.drawn = String(places.length); });

  const each = (change) => places.filter((place) => place.data).forEach((place) => change(place));
  dark.addEventListener("change", () =>
    each((place) => Plotly.relayout(place, themed(place.layout, colours(dark.matches)))));

  // Paper is narrow and white whatever the screen is, and nobody can unfold anything on it.
  let folded = [];
  addEventListener("beforeprint", () => {
    folded = [...document.querySelectorAll("details:not([open])")];
    folded.forEach((one) => { one.open = true; });
    each((place) => Plotly.relayout(place, { ...themed(place.layout, colours(false)), width: PAPER_WIDTH }));
  });
  addEventListener("afterprint", () => {
    folded.forEach((one) => { one.open = false; });
    each((place) => Plotly.relayout(place,
      { ...themed(place.layout, colours(dark.matches)), width: null, autosize: true }));
  });
})();
"""
