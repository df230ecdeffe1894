"use strict";
const make = (tag, className, text) => {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
};

(() => {
  const data = JSON.parse(document.getElementById("morph-data").textContent);
  const list = document.getElementById("cards");
  const count = document.getElementById("shown");
  const more = document.getElementById("more");
  const none = document.getElementById("none");
  const form = document.getElementById("filters");
  const PAGE = matchMedia("(max-width: 640px)").matches ? 16 : 48;
  const ROLES = ["source", "reference", "result"];
  const DEFAULTS = { show: "random", class: "", verdict: "", regions: "" };
  let limit = PAGE;

  const drawn = (tag, attributes) => {
    const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    return node;
  };

  // Width and height of the picture, half the side of a box, then x and y of each centre.
  const regions = ([width, height, half, ...centres]) => {
    const svg = drawn("svg", { viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true", class: "regions" });
    for (let place = 0; place < centres.length; place += 2) {
      const [x, y] = [centres[place], centres[place + 1]], colour = data.region_colours[place / 2];
      for (const style of ["under", "over"]) {
        const box = { x: x - half, y: y - half, width: 2 * half, height: 2 * half, class: style };
        svg.append(drawn("rect", style === "over" ? { ...box, stroke: colour } : box));
      }
      svg.append(drawn("circle", { cx: x, cy: y, r: width / 45, fill: colour, class: "centre" }));
    }
    return svg;
  };

  const part = (item, place, boxes) => {
    const role = ROLES[place];
    const label = place === 1 ? item.reference_label : item.label;
    const name = label < 0 ? "" : data.classes[label];
    const figure = make("figure");
    const frame = make("div", "frame");
    const picture = item.pictures[place];
    if (picture < 0) {
      frame.append(make("span", "", "no image"));
    } else {
      const image = make("img");
      image.src = data.pictures[picture];
      image.alt = role + (name ? ": " + name : "");
      frame.append(image);
      if (boxes && data.regions[picture]) frame.append(regions(data.regions[picture]));
    }
    const caption = make("figcaption");
    caption.append(make("span", "role", role));
    if (place < 2) {
      const text = make("bdi", "name", name || "–");
      text.title = [label < 0 ? "" : data.full_names[label], item.files[place]].filter(Boolean).join("\n");
      caption.append(text);
    } else {
      const known = item.confidence !== null;
      caption.append(make("span", "number", known ? item.confidence.toFixed(2) : "–"));
      const meter = make("span", "meter");
      meter.append(make("span"));
      meter.firstChild.style.width = (known ? 100 * item.confidence : 0) + "%";
      caption.append(meter);
    }
    figure.append(frame, caption);
    return figure;
  };

  const MARKS = { random: "random sample", best: "high confidence", worst: "low confidence" };

  const card = (item, tab, boxes) => {
    const entry = make("li", "card");
    const row = make("div", "triple");
    for (let place = 0; place < 3; place++) row.append(part(item, place, boxes));
    const rank = item.rank
      ? ": no. " + item.rank.toLocaleString("en") + " of " + data.ranked.toLocaleString("en") + " by confidence" : "";
    entry.append(make("p", "mark " + tab, MARKS[tab] + rank), row);
    const notes = [];
    if (item.kind !== "morph") notes.push(item.kind);
    if (item.verdict !== data.kept) {
      const reason = data.reasons[item.verdict];
      notes.push("rejected, " + data.verdicts[item.verdict] + (reason ? ": " + reason : ""));
    }
    if (item.predicted >= 0 && item.predicted !== item.label) {
      notes.push("predicted: " + data.classes[item.predicted]);
    }
    if (notes.length) entry.append(make("p", "note", notes.join(" · ")));
    return entry;
  };

  const draw = () => {
    const tab = form.elements.show.value, label = form.elements.class.value, verdict = form.elements.verdict.value;
    const boxes = form.elements.regions !== undefined && form.elements.regions.checked;
    const found = data.tabs[tab].map((place) => data.items[place]).filter((item) =>
      (label === "" || item.label === Number(label)) && (verdict === "" || item.verdict === Number(verdict)));
    const page = found.slice(0, limit);
    list.replaceChildren(...page.map((item) => card(item, tab, boxes)));
    for (const text of document.querySelectorAll("[data-tab]")) text.hidden = text.dataset.tab !== tab;
    count.hidden = found.length === 0;
    count.textContent = found.length > page.length
      ? "Showing " + page.length + " of " + found.length + "."
      : "Showing " + (found.length === 1 ? "1 morph." : found.length + " morphs.");
    more.hidden = found.length <= page.length;
    none.hidden = found.length > 0;
  };

  const hash = () => new URLSearchParams(
    [...new FormData(form)].filter(([name, value]) => value !== DEFAULTS[name])
  ).toString();

  const restore = () => {
    // A fragment without = is the name of a section.
    if (location.hash.length > 1 && !location.hash.includes("=")) return draw();
    const wanted = new URLSearchParams(location.hash.slice(1));
    for (const [name, usual] of Object.entries(DEFAULTS)) {
      const field = form.elements[name], value = wanted.get(name) ?? usual;
      if (field === undefined) continue;
      if (field.type === "checkbox") field.checked = value === "on";
      else if ([...(field.options ?? field)].some((option) => option.value === value)) field.value = value;
    }
    limit = PAGE;
    draw();
  };

  form.addEventListener("change", () => {
    limit = PAGE;
    history.replaceState(null, "", "#" + hash());
    draw();
  });
  form.addEventListener("submit", (event) => event.preventDefault());
  more.addEventListener("click", () => {
    const first = limit;
    limit += PAGE;
    draw();
    const next = list.children[first];
    if (next) { next.tabIndex = -1; next.focus({ preventScroll: true }); }
  });
  addEventListener("hashchange", restore);
  restore();
})();
(() => {
  const plot = document.getElementById("cloud");
  if (!plot) return;
  const data = JSON.parse(document.getElementById("cloud-data").textContent);
  const form = document.getElementById("cloud-filters");
  const pointed = document.getElementById("pointed");
  const svg = plot.querySelector("svg");
  const REACH = 24;
  const TILE = 120;
  const dots = [...svg.querySelectorAll("g")].map((node, number) => {
    const box = node.firstElementChild.getBBox();
    return {
      node, number, x: box.x + box.width / 2, y: box.y + box.height / 2,
      group: Number(node.dataset.group), kind: Number(node.getAttribute("class").slice(4)),
    };
  });
  const ring = document.createElementNS("http://www.w3.org/2000/svg", "circle");
  ring.setAttribute("class", "ring");
  ring.setAttribute("r", 16);
  let at = null;

  const there = (dot) => !dot.node.hasAttribute("hidden") && !dot.node.classList.contains("pale");

  const choose = (dot) => {
    if (dot === at) return;
    at = dot;
    if (!dot) {
      ring.remove();
      return;
    }
    ring.setAttribute("cx", dot.x);
    ring.setAttribute("cy", dot.y);
    svg.append(ring);
    const text = make("div");
    text.append(make("span", "role", data.kinds[dot.kind]), make("bdi", "name", data.names[dot.group]));
    const [file, pose] = data.files[dot.number];
    for (const [words, name] of pose === undefined ? [["", file]] : [["from ", file], ["in the pose of ", pose]]) {
      if (!name) continue;
      const line = make("p", "soft", words);
      const short = make("bdi", "", name.split("/").pop());
      short.title = name;
      line.append(short);
      text.append(line);
    }
    pointed.replaceChildren(text);
    if (data.sheet) {
      const tile = make("div", "tile"), sheet = make("img");
      const [across, down] = [dot.number % data.columns, Math.floor(dot.number / data.columns)];
      sheet.src = data.sheet;
      sheet.alt = "";
      sheet.style.width = `${data.columns * TILE}px`;
      sheet.style.transform = `translate(${-TILE * across}px, ${-TILE * down}px)`;
      tile.append(sheet);
      pointed.prepend(tile);
    }
  };

  const near = (event) => {
    const box = svg.getBoundingClientRect(), scale = 1040 / box.width;
    const x = (event.clientX - box.left) * scale - 20, y = (event.clientY - box.top) * scale - 20;
    let best = null, least = REACH * scale;
    for (const dot of dots) {
      const distance = Math.hypot(dot.x - x, dot.y - y);
      if (distance < least && there(dot)) [best, least] = [dot, distance];
    }
    if (best) choose(best);
  };

  // The next image in a direction: near, and rather ahead than aside.
  const step = (across, down) => {
    let best = null, least = Infinity;
    for (const dot of dots) {
      const ahead = (dot.x - at.x) * across + (dot.y - at.y) * down;
      const aside = Math.abs((dot.x - at.x) * down) + Math.abs((dot.y - at.y) * across);
      if (ahead > 0 && ahead + 2 * aside < least && there(dot)) [best, least] = [dot, ahead + 2 * aside];
    }
    if (best) choose(best);
  };

  const KEYS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  plot.addEventListener("pointermove", (event) => { if (event.pointerType === "mouse") near(event); });
  plot.addEventListener("pointerdown", near);
  plot.addEventListener("focus", () => {
    if (!at && plot.matches(":focus-visible")) choose(dots.find(there) ?? null);
  });
  plot.addEventListener("keydown", (event) => {
    const direction = KEYS[event.key];
    if (!direction || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    if (at) step(...direction);
    else choose(dots.find(there) ?? null);
  });
  form.hidden = false;
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("change", () => {
    const kinds = new Set(new FormData(form).getAll("kind").map(Number)), group = form.elements.class.value;
    for (const dot of dots) {
      dot.node.toggleAttribute("hidden", !kinds.has(dot.kind));
      dot.node.classList.toggle("pale", group !== "" && dot.group !== Number(group));
    }
    for (const tag of plot.querySelectorAll(".tag")) {
      tag.classList.toggle("pale", group !== "" && tag.dataset.group !== group);
    }
    if (at && !there(at)) choose(null);
  });
})();
