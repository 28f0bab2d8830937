"use strict";

// The strip of layers: one button a layer, one of them in the tab order, arrow keys move.
for (const group of document.querySelectorAll(".columns")) {
  const buttons = [...group.children];
  const select = (i, focus) => {
    buttons.forEach((b, k) => {
      b.tabIndex = k === i ? 0 : -1;
      b.toggleAttribute("aria-current", k === i);
      if (k === i) b.setAttribute("aria-current", "true");
      document.getElementById(b.getAttribute("aria-controls")).hidden = k !== i;
    });
    if (focus) buttons[i].focus();
  };
  const moves = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1, Home: -Infinity, End: Infinity };
  buttons.forEach((b, i) => {
    for (const event of ["mouseenter", "focus", "click"]) b.addEventListener(event, () => select(i, false));
    b.addEventListener("keydown", (e) => {
      if (!(e.key in moves)) return;
      e.preventDefault();
      select(Math.min(buttons.length - 1, Math.max(0, i + moves[e.key])), true);
    });
  });
  select(0, false);
}

// The frontier: the slider chooses a point, the strip under it shows what each layer gets.
const source = document.getElementById("frontier-data");
if (source) {
  const data = JSON.parse(source.textContent);
  const at = (id) => document.getElementById(id);
  const slider = at("budget");
  const bars = [...at("frontier-bars").firstElementChild.children];
  const bits = (format) => data.formats[format][0];
  const short = (format) => data.formats[format][1];

  const drawBar = (bar, format, before) => {
    bar.style.height = `${12.5 * bits(format)}%`;
    bar.className = `b${bits(format)}${before && before !== format ? " changed" : ""}`;
    bar.textContent = bits(format);
    bar.dataset.format = short(format);
  };

  const describe = (point, before) => {
    if (!before) return "";
    const changes = point.formats
      .map((format, i) => ({ name: data.layers[i], from: short(before[i]), to: short(format) }))
      .filter((c) => c.from !== c.to);
    if (changes.length === 0) return "This is the plan of this object.";
    const most = 6;
    const shown = changes.slice(0, most).map((c) => `${c.name} ${c.from} → ${c.to}`).join(", ");
    const rest = changes.length > most ? ` and ${changes.length - most} more` : "";
    return `Against this object, ${changes.length} of ${point.formats.length} layers change: ${shown}${rest}.`;
  };

  const show = () => {
    const point = data.points[slider.valueAsNumber];
    const before = data.chosen === null ? null : data.points[data.chosen].formats;
    ["bits", "size", "loss"].forEach((id, i) => { at(`frontier-${id}`).textContent = point.shown[i]; });
    slider.setAttribute("aria-valuetext", point.shown.join(", "));
    at("frontier-dot").style.left = `${100 * point.x}%`;
    at("frontier-dot").style.bottom = `${100 * point.y}%`;
    bars.forEach((bar, i) => drawBar(bar, point.formats[i], before && before[i]));
    at("frontier-changes").textContent = describe(point, before);
    at("frontier-command").textContent = `${data.command} ${point.budget} -o out`;
  };
  slider.addEventListener("input", show);
  show();
}
