"use strict";

(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const get = (id) => document.getElementById(id);

  function bytes(text) {
    const letters = atob(text);
    return Int8Array.from(letters, (letter) => (letter.charCodeAt(0) << 24) >> 24);
  }

  function fill(select, names) {
    names.forEach((name, n) => select.add(new Option(name, n)));
  }

  function shown(value) {
    return value.toPrecision(3);
  }

  // The page's colours, which differ in the dark: [r, g, b].
  function colour(name) {
    return getComputedStyle(document.documentElement).getPropertyValue(name).split(",").map(Number);
  }

  // Cells over time: a pixel for each unit and step.
  function heatMap(heat) {
    const canvas = get("heat"), layers = get("heat-layer"), parts = get("heat-part");
    const names = { c: "c, the cells", h: "h, what they let out" };
    let values, part, map;
    fill(layers, heat.maps.map((one) => one.name));
    canvas.width = heat.steps;

    function choose() {
      map = heat.maps[layers.value];
      const before = parts.selectedOptions[0]?.dataset.part;
      parts.replaceChildren();
      for (const name of Object.keys(map.parts)) {
        const option = new Option(names[name], name);
        option.dataset.part = name;
        parts.add(option);
      }
      if (before in map.parts) parts.value = before;
      draw();
    }

    function draw() {
      part = map.parts[parts.value];
      values = bytes(part.data);
      const low = colour("--low"), high = colour("--high"), bend = parts.value === "c" ? Math.tanh : (value) => value;
      canvas.height = map.units.length;
      canvas.style.height = Math.max(160, Math.min(420, 5 * map.units.length)) + "px";
      const picture = new ImageData(heat.steps, map.units.length);
      values.forEach((value, n) => {
        const [r, g, b] = value < 0 ? low : high;
        const share = Math.min(1, bend(Math.abs(value) * part.scales[Math.floor(n / heat.steps)]));
        picture.data.set([r, g, b, Math.round(share * 255)], 4 * n);
      });
      canvas.getContext("2d").putImageData(picture, 0, 0);
    }

    canvas.addEventListener("pointermove", (event) => {
      const box = canvas.getBoundingClientRect();
      const step = Math.floor(((event.clientX - box.left) / box.width) * heat.steps);
      const row = Math.floor(((event.clientY - box.top) / box.height) * map.units.length);
      const value = values[row * heat.steps + step];
      if (value === undefined || step < 0 || step >= heat.steps) return;
      const token = data.text ? `, token ${data.text.shown[step]}` : "";
      get("heat-told").textContent = `unit ${map.units[row]}, step ${step}${token}: ${shown(value * part.scales[row])}`;
    });
    layers.addEventListener("change", choose);
    parts.addEventListener("change", draw);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
    choose();
  }

  // The text, coloured by a cell or by how much each token surprised.
  function colouredText(text) {
    const marks = get("text-mark"), place = get("text");
    let tell = () => "";
    const spans = text.pieces.map((piece, n) => {
      const span = document.createElement("span");
      span.textContent = piece;
      span.dataset.n = n;
      return span;
    });
    place.append(...spans);
    fill(marks, text.marks.map((mark) => mark.name));

    function draw() {
      const mark = text.marks[marks.value];
      if (mark.bits) {
        const warm = colour("--warm"), most = Math.max(8, ...mark.bits);
        spans.forEach((span, n) => {
          const bits = mark.bits[n];
          span.style.background = bits === null ? "" : `rgba(${warm}, ${Math.min(0.75, Math.sqrt(bits / most))})`;
        });
        tell = (n) => (mark.bits[n] === null ? "no surprise is known" : `${mark.bits[n]} bits`);
        return;
      }
      const values = bytes(mark.data), low = colour("--low"), high = colour("--high");
      spans.forEach((span, n) => {
        const share = values[n] / 127;
        span.style.background = `rgba(${share < 0 ? low : high}, ${Math.abs(share) * 0.7})`;
      });
      tell = (n) => shown(values[n] * mark.scale + mark.mean);
    }

    place.addEventListener("pointerover", (event) => {
      const n = event.target.dataset.n;
      if (n !== undefined) get("text-told").textContent = `step ${n}, ${text.shown[n]}: ${tell(n)}`;
    });
    marks.addEventListener("change", draw);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
    draw();
  }

  if (data.heat) heatMap(data.heat);
  if (data.text) colouredText(data.text);
})();
