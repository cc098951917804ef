"use strict";
// Draws what the page's JSON holds: tables, curves, sweeps, the spread. Text goes in as text only.
(() => {
  const { metrics: METRICS, scenarios: SCENARIOS } = JSON.parse(document.getElementById("data").textContent);
  const root = document.documentElement;
  const narrow = matchMedia("(max-width: 1000px)");
  const still = matchMedia("(prefers-reduced-motion: reduce)");
  const redraws = new Set();
  const STEPS_OF_TIME = [-2, -1, 0, 1, 2, 3, 4].flatMap(power => [1, 2, 2.5, 5].map(step => step * 10 ** power));
  const HUES = 6, ROWS_MAX = 200, FRAMES = 240, PLAY_MS = 6000;

  function el(tag, properties = {}, ...children) {
    const made = document.createElement(tag);
    for (const [key, value] of Object.entries(properties)) {
      if (key in made && key !== "role") made[key] = value; else made.setAttribute(key, value);
    }
    made.append(...children);
    return made;
  }

  // Colours come from the style sheet, resolved for the scheme that is shown.
  const probe = el("i", { hidden: true });
  document.body.append(probe);
  const color = name => { probe.style.color = `var(--${name})`; return getComputedStyle(probe).color; };
  const rgb = name => color(name).match(/[\d.]+/g).slice(0, 3).map(Number);
  const faint = (name, alpha) => `rgb(${rgb(name).join(" ")} / ${alpha})`;

  const light = parts => {
    const [red, green, blue] = parts.map(part => part / 255 <= 0.04045 ? part / 3294.6 : ((part / 255 + 0.055) / 1.055) ** 2.4);
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  };
  const contrast = (one, other) => { const [dim, bright] = [light(one), light(other)].sort((a, b) => a - b); return (bright + 0.05) / (dim + 0.05); };

  // Numbers.
  const text = (value, decimals, least = decimals) =>
    value.toLocaleString("en", { minimumFractionDigits: least, maximumFractionDigits: decimals });
  const STEPS = {
    share: [[0, 100, " %"]],
    ms: [[0, 1, " ms"], [1e3, 1e-3, " s"], [12e4, 1 / 6e4, " min"], [72e5, 1 / 36e5, " h"], [1728e5, 1 / 864e5, " days"]],
    bytes: [[0, 1, " B"], [1e3, 1e-3, " kB"], [1e6, 1e-6, " MB"], [1e9, 1e-9, " GB"]],
    "bytes/s": [[0, 1, " B/s"], [1e3, 1e-3, " kB/s"], [1e6, 1e-6, " MB/s"]],
    "": [[0, 1, ""]],
  };
  const measure = (unit, greatest) => STEPS[unit].findLast(([from]) => Math.abs(greatest) >= from) ?? STEPS[unit][0];
  /** A value in a measure, as exact as half its interval allows; a share is never rounded to none or all that it is not. */
  function show(value, [, factor, suffix], half = 0) {
    if (value === null || value === undefined || !isFinite(value)) return "–";
    const scaled = value * factor, size = Math.floor(Math.log10(Math.abs(half ? half * factor : scaled) || 1));
    // An interval is told in one digit, in two where the first is small.
    const told = half ? (half * factor / 10 ** size < 3 ? 1 : 0) : 3;
    let decimals = Math.min(8, Math.max(0, told - size));
    if (factor === 100 && value > 0 && value < 1) while (decimals < 8 && [0, 100].includes(Number(scaled.toFixed(decimals)))) decimals++;
    return text(scaled, decimals, half && !(factor === 100 && value % 1 === 0) ? decimals : 0) + suffix;
  }
  const unitOf = name => METRICS[name]?.[1] ?? "";
  const alone = (value, unit) => show(value, measure(unit, value));
  const greatest = values => values.reduce((most, value) => Math.max(most, Math.abs(value ?? 0)), 0);
  const percent = share => show(share, STEPS.share[0]);
  const time = (at, axis) => axis === "ms" ? alone(at, "ms") : `${text(at, at % 1 ? 1 : 0)} ${at === 1 ? "round" : "rounds"}`;
  const called = value => typeof value === "number" ? value.toLocaleString("en", { maximumFractionDigits: 9 }) : String(value);
  const brief = key => { const parts = key.split("."); return parts.slice(/^\d+$/.test(parts.at(-2)) ? -3 : -2).join("."); };
  const label = (scenario, cell) => scenario.keys.map((key, at) => `${brief(key)} = ${called(cell.at[at])}`).join(", ");
  const replay = (cell, seed) => {
    const run = cell.played.find(([played]) => played === seed);
    return run ? cell.replay[0] + run[2] + cell.replay[1] : "";
  };

  // Copying.
  const told = document.getElementById("told");
  let quiet;
  async function copied(command) {
    try {
      await navigator.clipboard.writeText(command);
    } catch {
      const field = el("textarea", { value: command, readOnly: true, ariaHidden: "true" });
      const focused = document.activeElement;
      document.body.append(field);
      field.select();
      document.execCommand("copy");
      field.remove();
      focused?.focus();
    }
    told.replaceChildren("Copied: ", el("code", {}, command));
    clearTimeout(quiet);
    quiet = setTimeout(() => told.replaceChildren(), 4000);
  }
  document.addEventListener("click", event => {
    const button = event.target.closest?.("[data-copy]");
    if (button) copied(button.dataset.copy);
  });
  function copy(says, command, what) {
    if (!command) return says;
    const button = el("button", { type: "button", className: "copy", title: command, ariaLabel: `Copy the command that replays ${what}` }, says);
    button.dataset.copy = command;
    return button;
  }

  // Tables.
  function table(head, rows, name) {
    const line = (cells, cell) => el("tr", {}, ...cells.map(cell));
    return el("div", { className: "scroll", tabIndex: 0, role: "region", ariaLabel: name }, el("table", {},
      el("thead", {}, line(head, it => el("th", { scope: "col" }, it))),
      el("tbody", {}, ...rows.map(row => line(row, (it, at) =>
        at === 0 ? el("th", { scope: "row" }, ...[it].flat()) : el("td", { className: head[at] === "mean" ? "mean" : "" }, it))))));
  }
  const HEAD = ["mean", "95 % interval", "least – greatest"];
  function figures(summary, unit, theory, overall) {
    const [mean, , , least, most] = summary;
    // Student's interval knows no bounds: nothing measured is less than none, and no share more than all.
    const low = Math.max(0, summary[1]), high = unit === "share" ? Math.min(1, summary[2]) : summary[2];
    const how = measure(unit, overall), half = (summary[2] - summary[1]) / 2;
    const bare = [how[0], how[1], ""];
    const range = (from, to, half) => from === to ? "–" : `${show(from, bare, half)} – ${show(to, how, half)}`;
    return [show(mean, how, half), range(low, high, half), range(least, most, half), ...theory === null ? [] : [show(theory, how)]];
  }
  const worst = (cell, summary, what) => copy(`seed ${summary[5]}`, replay(cell, summary[5]), `the worst run: ${what}`);
  const complete = ({ full }, runs) => full ? `${full[0]} of ${runs} (${text(full[1] * 100, 0)} – ${text(full[2] * 100, 0)} %)` : "–";

  /** One cell: a row for each metric. */
  function metricTable(scenario) {
    const [cell] = scenario.cells, names = scenario.metrics.filter(name => cell.metrics[name]);
    const theory = Object.keys(cell.theory).length > 0;
    const rows = names.map(name => {
      const summary = cell.metrics[name];
      const says = METRICS[name]?.[0] ?? "";
      return [[name, el("small", {}, says)], ...figures(summary, unitOf(name), theory ? cell.theory[name] ?? undefined : null, summary[0]), worst(cell, summary, name)];
    });
    return table(["", ...HEAD, ...theory ? ["theory"] : [], "worst run"], rows, `Figures of ${scenario.name}`);
  }
  /** A sweep: a row for each cell, one metric. */
  function cellTable(scenario, name) {
    const cells = scenario.cells.filter(cell => cell.metrics[name]);
    const theory = cells.some(cell => name in cell.theory), full = cells.some(cell => cell.full);
    const overall = greatest(cells.map(cell => cell.metrics[name][0]));
    const rows = cells.map(cell => {
      const summary = cell.metrics[name];
      const where = scenario.keys.flatMap((key, at) => [el("span", {}, el("i", {}, `${brief(key)} `), called(cell.at[at])), " "]);
      return [where, ...figures(summary, unitOf(name), theory ? cell.theory[name] ?? undefined : null, unitOf(name) === "ms" ? summary[0] : overall),
        ...full ? [complete(cell, cell.runs)] : [], worst(cell, summary, label(scenario, cell))];
    });
    return table(["cell", ...HEAD, ...theory ? ["theory"] : [], ...full ? ["runs that reached all"] : [], "worst run"], rows, `${name} in each cell`);
  }

  // Charts.
  const axes = (x, y, xs) => {
    const common = { stroke: () => color("soft"), grid: { stroke: () => color("line"), width: 1 }, ticks: { show: false }, font: "12px system-ui, sans-serif" };
    return [
      { ...common, label: x.label, labelSize: 22, labelFont: "12px system-ui, sans-serif", size: 30, space: 54, grid: { show: false }, values: (u, at) => at.map(x.show), ...xs },
      { ...common, size: y.size ?? 58, space: 34, values: (u, at) => at.map(y.show) },
    ];
  };
  /** A chart in a host: as wide as it, with a read-out under the cursor and keys, drawn anew when the scheme changes. */
  function chart(host, options, columns, readOut, name) {
    const tip = el("div", { className: "tip", hidden: true });
    const height = () => host.clientWidth < 520 ? 240 : 320;
    const at = u => {
      const { idx, left } = u.cursor, lines = idx === null || idx === undefined || left < 0 ? null : readOut(idx, u);
      tip.hidden = !lines;
      if (!lines) return;
      tip.replaceChildren(el("b", {}, lines[0]), ...lines.slice(1).map(([hue, line]) => {
        const dot = el("i");
        dot.style.background = color(hue);
        return el("div", {}, dot, line);
      }));
      const room = u.over.clientWidth, wide = tip.offsetWidth;
      tip.style.left = `${left + 14 + wide > room ? Math.max(0, left - 14 - wide) : left + 14}px`;
    };
    const u = new uPlot({
      width: host.clientWidth, height: height(), legend: { show: false },
      cursor: { y: false, drag: { x: true, y: true, uni: 24 }, points: { size: 7 } },
      ...options, hooks: { setCursor: [at] },
    }, columns, host);
    u.over.append(tip);
    u.over.tabIndex = 0;
    u.over.setAttribute("role", "img");
    u.over.setAttribute("aria-label", `${name}. Arrow keys read values, drag zooms, double click shows all.`);
    u.over.addEventListener("keydown", event => {
      const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (event.key === "Escape") u.setCursor({ left: -10, top: -10 });
      if (!by) return;
      event.preventDefault();
      const idx = Math.min(columns[0].length - 1, Math.max(0, (u.cursor.idx ?? -1) + by));
      u.setCursor({ left: u.valToPos(columns[0][idx], "x"), top: 10 });
    });
    u.over.addEventListener("blur", () => u.setCursor({ left: -10, top: -10 }));
    const sized = new ResizeObserver(() => {
      if (host.clientWidth && host.clientWidth !== u.width) u.setSize({ width: host.clientWidth, height: height() });
    });
    sized.observe(host);
    const redraw = () => u.redraw(false, true);
    redraws.add(redraw);
    return () => { sized.disconnect(); redraws.delete(redraw); u.destroy(); };
  }
  const line = (hue, more = {}) => ({ stroke: () => color(hue), width: 2, points: { show: false }, ...more });
  const bound = { stroke: "transparent", width: 0, points: { show: false } };
  const between = (series, hue, alpha) => ({ series, fill: () => faint(hue, alpha) });

  /** One and its tenfolds between two values, with two and five where they are few. */
  function decades(low, high) {
    const steps = high / low > 200 ? [1] : [1, 2, 5], found = [];
    for (let power = Math.floor(Math.log10(low)); 10 ** power <= high; power++) found.push(...steps.map(step => step * 10 ** power));
    return found.filter(at => at >= low && at <= high);
  }
  /** Of the places on an axis those whose labels have room beside one another. */
  function apart(u, places) {
    let last = -Infinity;
    return places.map(place => {
      const left = u.valToPos(place, "x");
      if (left - last < 54) return null;
      last = left;
      return place;
    });
  }
  /** A curve's value anywhere: straight between points, the last one behind its end if it is held. */
  function along(xs, ys, held) {
    let at = 0;
    return x => {
      while (at + 1 < xs.length && xs[at + 1] <= x) at++;
      if (!xs.length || x < xs[0]) return null;
      if (at + 1 >= xs.length) return x === xs[at] || held ? ys[at] : null;
      return ys[at] + (ys[at + 1] - ys[at]) * (x - xs[at]) / (xs[at + 1] - xs[at]);
    };
  }

  function curves(scenario, drawn) {
    const host = el("div", { className: "chart" }), chosen = new Set(scenario.curves);
    const cells = scenario.cells.map((cell, at) => ({ cell, at })).filter(({ cell }) => cell.band[0].length);
    // Each shown cell keeps a hue of its own as long as it is shown.
    const hues = new Map();
    const hue = at => {
      if (!hues.has(at)) {
        const free = [...Array(HUES).keys()].find(it => ![...hues.values()].includes(it));
        hues.set(at, free ?? at % HUES);
      }
      return `c${hues.get(at)}`;
    };
    let gone = () => {};
    const draw = () => {
      gone();
      for (const at of hues.keys()) if (!chosen.has(at)) hues.delete(at);
      const shown = cells.filter(({ at }) => chosen.has(at));
      // A logarithmic axis has no zero, and no curve is drawn between zero and its first point behind it.
      const from = tail.checked ? Number.MIN_VALUE : -Infinity;
      const within = rows => { const first = rows[0].findIndex(x => x >= from); return rows.map(row => first < 0 ? [] : row.slice(first)); };
      const parts = shown.map(({ cell }) => [within(cell.band), within(cell.curve)]);
      const grid = [...new Set(parts.flatMap(([band, curve]) => [...band[0], ...curve[0]]))].sort((a, b) => a - b);
      const columns = [grid], series = [{}], bands = [];
      for (const [nth, { at }] of shown.entries()) {
        const [[xs, ...rows], curve] = parts[nth];
        bands.push(between([columns.length + 2, columns.length], hue(at), 0.16));
        columns.push(...rows.map(row => grid.map(along(xs, row, true))), grid.map(along(...curve, false)));
        series.push(bound, line(hue(at)), bound, line(hue(at), { dash: [6, 5], width: 1.5, spanGaps: true }));
      }
      const about = value => show(value, STEPS.share[0], 0.002), small = () => host.clientWidth < 520;
      const readOut = index => [[time(grid[index], scenario.axis), ...scenario.keys.map(brief)].join(" · "), ...shown.map(({ cell, at }, nth) => {
        const [low, mid, high, theory] = [1, 2, 3, 4].map(row => columns[nth * 4 + row][index]);
        const spread = low === high || small() ? "" : ` (${about(low)} – ${about(high)})`;
        const name = scenario.keys.length ? `${cell.at.map(called).join(" · ")}: ` : "";
        if (mid === null) return [hue(at), `${name}–`];
        return [hue(at), `${name}${about(mid)}${spread}${theory === null ? "" : `, theory ${about(theory)}`}`];
      })];
      const how = measure("ms", grid.at(-1) ?? 0), since = "time since it was written";
      const [x, steps] = scenario.axis !== "ms" ? [{ label: "rounds", show: at => at % 1 ? "" : text(at, 0) }]
        : tail.checked ? [{ label: since, show: at => at === null ? "" : alone(at, "ms") }, { splits: (u, axis, low, high) => decades(low, high), filter: apart }]
        : [{ label: `${since},${how[2]}`, show: at => text(at * how[1], 3, 0) }, { incrs: STEPS_OF_TIME.map(step => step / how[1]) }];
      gone = chart(host, {
        scales: { x: { time: false, distr: tail.checked ? 3 : 1, ...tail.checked ? { range: (u, low, high) => [low, high] } : {} }, y: { range: [0, 1.03] } },
        axes: axes(x, { show: at => at > 1.0001 ? "" : percent(at) }, steps), series, bands,
      }, columns, readOut, `Share of nodes reached, ${scenario.name}`);
      for (const [at, key] of keys) key.style.background = chosen.has(at) ? color(hue(at)) : "";
    };
    const tail = el("input", { type: "checkbox", checked: scenario.tail });
    tail.addEventListener("change", () => draw());
    const keys = new Map();
    const list = el("div", { className: "keys", role: "group", ariaLabel: "Curves shown" });
    if (cells.length > 1) for (const { cell, at } of cells) {
      const box = el("input", { type: "checkbox", checked: chosen.has(at) }), key = el("i");
      box.addEventListener("change", () => { if (box.checked) chosen.add(at); else chosen.delete(at); draw(); });
      keys.set(at, key);
      list.append(el("label", {}, box, key, scenario.keys.length > 1 ? cell.at.map(called).join(" · ") : label(scenario, cell)));
    }
    if (scenario.keys.length > 1) list.prepend(el("span", { className: "soft" }, scenario.keys.map(brief).join(" · ")));
    const theory = cells.some(({ cell }) => cell.curve[0].length);
    drawn.append(el("section", { className: "panel" },
      el("div", { className: "top" }, el("h3", {}, "Share of nodes reached"), el("span", { className: "soft" },
        `median and 5 – 95 % of runs${theory ? ", theory dashed" : ""}; drag to zoom, double click for all`),
        ...scenario.axis === "ms" ? [el("label", { className: "soft" }, tail, " logarithmic time")] : []),
      ...cells.length > 1 ? [list] : [], host));
    draw();
    redraws.add(() => { for (const [at, key] of keys) key.style.background = chosen.has(at) ? color(hue(at)) : ""; });
  }

  const wide = values => { const low = Math.min(...values), high = Math.max(...values); return low > 0 && high / low >= 30; };

  /** One swept key: the metric against it. */
  function sweepChart(scenario, name, host) {
    const cells = scenario.cells.filter(cell => cell.metrics[name]);
    const numbers = cells.every(cell => typeof cell.at[0] === "number");
    if (numbers) cells.sort((a, b) => a.at[0] - b.at[0]);
    const xs = cells.map((cell, at) => numbers ? cell.at[0] : at);
    const rows = [0, 1, 2, 3, 4].map(at => cells.map(cell => cell.metrics[name][at]));
    const [mean, low, high, least, most] = rows, theory = cells.map(cell => cell.theory[name] ?? null);
    const how = measure(unitOf(name), greatest(mean)), log = wide(mean.concat(least));
    const spaced = numbers && xs.length > 1 ? { splits: () => xs } : { splits: () => xs };
    return chart(host, {
      scales: { x: { time: false, distr: numbers && wide(xs) ? 3 : 1, range: (u, from, to) => numbers && wide(xs) ? [from / 1.3, to * 1.3] : [from - (to - from || 1) * 0.04, to + (to - from || 1) * 0.04] }, y: { distr: log ? 3 : 1 } },
      axes: axes(
        { label: scenario.keys[0], show: at => numbers ? called(at) : called(cells[at]?.at[0] ?? "") },
        { show: at => at === null ? "" : show(at, how), size: 70 }, spaced),
      series: [{}, bound, bound, bound, bound, line("c0", { points: { show: true, size: 6 } }), line("c1", { dash: [6, 5], width: 1.5, spanGaps: true })],
      bands: [between([2, 1], "c0", 0.1), between([4, 3], "c0", 0.22)],
    }, [xs, least, most, low, high, mean, theory], index => [label(scenario, cells[index]),
      ["c0", `mean ${show(mean[index], how, (high[index] - low[index]) / 2)}`],
      ["c0", `runs ${show(least[index], how)} – ${show(most[index], how)}`],
      ...theory[index] === null ? [] : [["c1", `theory ${show(theory[index], how)}`]]], `${name} against ${scenario.keys[0]}`);
  }

  /** Two swept keys or more: a map of the metric over two of them, the others held. */
  function heatMap(scenario, name, host) {
    const values = scenario.keys.map((_, at) => [...new Set(scenario.cells.map(cell => cell.at[at]))]);
    for (const list of values) if (list.every(it => typeof it === "number")) list.sort((a, b) => a - b);
    const [down, across, ...others] = scenario.keys.map((_, at) => at);
    const held = new Map(others.map(at => [at, values[at][0]]));
    const draw = () => {
      const cells = scenario.cells.filter(cell => cell.metrics[name] && [...held].every(([at, value]) => cell.at[at] === value));
      const means = cells.map(cell => cell.metrics[name][0]).filter(isFinite);
      const least = Math.min(...means), most = Math.max(...means), log = wide(means);
      const rank = it => most === least ? 0.5 : log ? Math.log(it / least) / Math.log(most / least) : (it - least) / (most - least);
      const all = measure(unitOf(name), most), [accent, surface, ink] = ["accent", "surface", "ink"].map(rgb);
      const square = (row, column) => {
        const cell = cells.find(cell => cell.at[down] === row && cell.at[across] === column);
        if (!cell) return el("td", {}, "–");
        const [mean, low, high] = cell.metrics[name], how = unitOf(name) === "ms" ? measure("ms", mean) : all;
        const box = el("td", { title: `${label(scenario, cell)}: ${show(mean, how, (high - low) / 2)}, 95 % interval ${show(low, how)} – ${show(high, how)}` }, show(mean, how));
        const depth = rank(mean);
        const ground = accent.map((part, at) => Math.round(part + (surface[at] - part) * 0.94 * (1 - depth)));
        box.style.background = `rgb(${ground.join(" ")})`;
        box.style.color = contrast(ground, surface) > contrast(ground, ink) ? "var(--surface)" : "var(--ink)";
        return box;
      };
      const choice = at => {
        const menu = el("select", { ariaLabel: scenario.keys[at] }, ...values[at].map((value, nth) => el("option", { value: nth, selected: value === held.get(at) }, called(value))));
        menu.addEventListener("change", () => { held.set(at, values[at][menu.value]); draw(); });
        return el("label", { className: "small soft" }, `${scenario.keys[at]} `, menu);
      };
      host.replaceChildren(...others.map(choice),
        el("div", { className: "scroll", tabIndex: 0, role: "region", ariaLabel: `${name} by ${scenario.keys[down]} and ${scenario.keys[across]}` },
          el("table", { className: "heat" },
            el("thead", {}, el("tr", {}, el("th", {}, el("span", {}, `${brief(scenario.keys[down])} ↓`), el("span", {}, `${brief(scenario.keys[across])} →`)), ...values[across].map(it => el("th", { scope: "col" }, called(it))))),
            el("tbody", {}, ...values[down].map(row => el("tr", {}, el("th", { scope: "row" }, called(row)), ...values[across].map(column => square(row, column))))))),
        el("div", { className: "scale" }, el("span", {}, alone(least, unitOf(name))), el("i"), el("span", {}, alone(most, unitOf(name)) + (log ? ", logarithmic" : ""))));
    };
    draw();
    redraws.add(draw);
    return () => redraws.delete(draw);
  }

  function sweep(scenario, drawn) {
    const menu = el("select", { ariaLabel: "Metric" }, ...scenario.metrics.map(name => el("option", { selected: name === scenario.first }, name)));
    const says = el("span", { className: "soft" }), host = el("div", { className: "chart" }), rows = el("div");
    let gone = () => {};
    const draw = () => {
      const name = menu.value;
      gone();
      host.replaceChildren();
      says.textContent = METRICS[name]?.[0] ?? "";
      rows.replaceChildren(cellTable(scenario, name));
      gone = (scenario.keys.length === 1 ? sweepChart : heatMap)(scenario, name, host);
    };
    menu.addEventListener("change", draw);
    drawn.append(el("section", { className: "panel sweep" }, el("div", { className: "top" }, el("h3", {}, "Figures"), menu, says), host, rows));
    draw();
  }

  // The spread: a dot for each node, in a disc for each region, coloured by when it learnt.
  function discs(regions, width) {
    const across = regions.length === 1 ? 1 : width < 520 ? 2 : Math.min(4, regions.length);
    const cell = width / across, most = Math.max(...regions.map(region => region.nodes));
    const outer = Math.min(cell, 215) / 2 - 14;
    // Without regions the nodes are a field as wide as the page.
    const step = regions.length === 1 ? Math.sqrt(width * Math.min(280, width) / most) : 0, row = Math.floor(width / (step || width));
    const high = step ? Math.ceil(most / row) * step + 34 : outer * 2 + 58;
    const dot = Math.max(0.8, Math.min(6, step ? step * 0.4 : outer * 0.82 / Math.sqrt(most)));
    const placed = regions.map((region, nth) => {
      const radius = outer * Math.sqrt(region.nodes / most), x = cell * (nth % across + 0.5), y = high * Math.floor(nth / across) + outer + 12;
      // A sunflower: even density, and a seeded shuffle so that time is not order.
      const order = Uint32Array.from({ length: region.nodes }, (_, at) => at);
      let state = 12345 + nth;
      for (let at = region.nodes - 1; at > 0; at--) {
        state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
        const other = state % (at + 1);
        [order[at], order[other]] = [order[other], order[at]];
      }
      const dots = Float32Array.from({ length: region.nodes * 2 }, (_, at) => {
        const spot = order[at >> 1], far = radius * Math.sqrt((spot + 0.5) / region.nodes), turn = spot * 2.399963;
        if (step) return ((at % 2 ? Math.floor(spot / row) : spot % row) + 0.5) * step;
        return at % 2 ? y + far * Math.sin(turn) : x + far * Math.cos(turn);
      });
      return { dots, x, label: step ? high - 28 : y + outer + 22 };
    });
    return { placed, dot, height: high * Math.ceil(regions.length / across) };
  }

  function world(scenario, drawn) {
    const cells = scenario.cells.filter(cell => cell.spread.length);
    const canvas = el("canvas", { role: "img" }), out = el("output");
    const play = el("button", { type: "button", className: "plain" }, "Play");
    const slider = el("input", { type: "range", min: 0, step: 1, ariaLabel: "Time" });
    const menu = el("select", { ariaLabel: "Cell" }, ...cells.map((cell, at) => el("option", { value: at }, label(scenario, cell))));
    const size = cell => cell.spread.reduce((sum, [, [pairs, never]]) => pairs.reduce((all, count, at) => at % 2 ? all + count : all, sum + never), 0);
    // The first of the largest.
    menu.value = cells.reduce((best, cell, at) => size(cell) > size(cells[best]) ? at : best, 0);
    let regions, all, last, knee, layout, playing = 0;

    const choose = () => {
      regions = cells[menu.value || 0].spread.map(([name, [pairs, never]]) => {
        const times = [];
        for (let at = 0, when = 0; at < pairs.length; at += 2) {
          when += pairs[at];
          for (let n = 0; n < pairs[at + 1]; n++) times.push(when);
        }
        return { name, times, nodes: times.length + never };
      });
      all = regions.reduce((sum, region) => sum + region.nodes, 0);
      const times = regions.flatMap(region => region.times).sort((a, b) => a - b);
      last = times.at(-1) ?? 0;
      // A long tail gets the last seventh of the slider, so that what happens at first can be seen.
      knee = times[Math.floor(times.length * 0.99)] ?? 0;
      if (scenario.axis === "rounds" || knee * 1.5 > last) knee = last;
      slider.max = scenario.axis === "rounds" ? last : FRAMES;
      slider.value = slider.max;
      layout = null;
    };
    const at = () => {
      if (scenario.axis === "rounds") return Number(slider.value);
      const share = slider.value / slider.max;
      if (knee === last) return Math.round(last * share);
      return Math.round(share < 6 / 7 ? knee * share * 7 / 6 : knee + (last - knee) * (share * 7 - 6));
    };
    const reached = (times, now) => {
      let low = 0, high = times.length;
      while (low < high) { const mid = (low + high) >> 1; if (times[mid] <= now) low = mid + 1; else high = mid; }
      return low;
    };
    const paint = (context, dots, from, to, radius) => {
      context.beginPath();
      for (let node = from; node < to; node++) {
        const x = dots[node * 2], y = dots[node * 2 + 1];
        if (radius < 1.3) context.rect(x - radius, y - radius, radius * 2, radius * 2);
        else { context.moveTo(x + radius, y); context.arc(x, y, radius, 0, 7); }
      }
      context.fill();
    };
    const draw = () => {
      const width = canvas.parentElement.clientWidth;
      if (!width) return;
      if (layout?.width !== width) {
        layout = { ...discs(regions, width), width };
        const scale = devicePixelRatio || 1;
        canvas.width = width * scale;
        canvas.height = layout.height * scale;
        canvas.style.height = `${layout.height}px`;
        canvas.getContext("2d").setTransform(scale, 0, 0, scale, 0, 0);
      }
      const context = canvas.getContext("2d"), now = at(), stops = ["early", "middle", "late"].map(rgb);
      const [unseen, ink, soft] = ["unseen", "ink", "soft"].map(color);
      const ramp = when => {
        const share = knee ? Math.min(1, when / knee) * 2 : 0, from = Math.min(1, Math.floor(share));
        return `rgb(${stops[from].map((part, nth) => Math.round(part + (stops[from + 1][nth] - part) * (share - from))).join(" ")})`;
      };
      context.clearRect(0, 0, width, layout.height);
      let sum = 0;
      regions.forEach((region, nth) => {
        const { dots, x, label } = layout.placed[nth], count = reached(region.times, now);
        sum += count;
        context.fillStyle = unseen;
        paint(context, dots, count, region.nodes, layout.dot * 0.8);
        for (let from = 0; from < count;) {
          // Nodes that learn it within one shade of the ramp are painted together.
          const until = region.times[from] + (knee || 1) / 48, to = Math.min(count, Math.max(from + 1, reached(region.times, until)));
          context.fillStyle = ramp(region.times[from]);
          paint(context, dots, from, to, layout.dot);
          from = to;
        }
        context.textAlign = "center";
        context.font = "600 12px system-ui, sans-serif";
        context.fillStyle = ink;
        if (regions.length > 1) context.fillText(region.name, x, label);
        context.font = "12px system-ui, sans-serif";
        context.fillStyle = soft;
        context.fillText(`${text(count, 0)} of ${text(region.nodes, 0)}`, x, label + 16);
      });
      const says = `${time(now, scenario.axis)}: ${text(sum, 0)} of ${text(all, 0)} nodes reached (${percent(sum / all)})`;
      out.textContent = says;
      slider.setAttribute("aria-valuetext", says);
      canvas.setAttribute("aria-label", `Nodes by region after ${says}`);
    };
    const stop = () => { clearTimeout(playing); playing = 0; play.textContent = "Play"; };
    const step = () => {
      const frames = Number(slider.max), calm = still.matches, stride = calm ? Math.max(1, Math.ceil(frames / 12)) : 1;
      slider.value = Number(slider.value) + stride;
      draw();
      if (Number(slider.value) >= frames) return stop();
      playing = setTimeout(step, calm ? 700 : Math.max(25, PLAY_MS / Math.max(frames, 12)));
    };
    play.addEventListener("click", () => {
      if (playing) return stop();
      if (slider.value === slider.max) { slider.value = 0; draw(); }
      play.textContent = "Pause";
      playing = setTimeout(step, 25);
    });
    slider.addEventListener("input", () => { stop(); draw(); });
    menu.addEventListener("change", () => { stop(); choose(); draw(); });
    choose();
    drawn.append(el("section", { className: "panel world" },
      el("div", { className: "top" }, el("h3", {}, "The spread of the first run"), el("span", { className: "soft" }, "a dot is a node; reached first", el("i", { className: "ramp" }), "reached last")),
      ...cells.length > 1 ? [menu] : [],
      el("div", { className: "player" }, play, slider, out), el("div", {}, canvas)));
    draw();
    new ResizeObserver(draw).observe(canvas.parentElement);
    redraws.add(draw);
  }

  // Runs.
  function runs(scenario, host) {
    const all = scenario.cells.flatMap(cell => cell.played.map(run => [cell, run]));
    const keyed = scenario.keys.length > 0;
    const row = ([cell, [seed, hash, , broken]]) => el("tr", {},
      ...keyed ? [el("td", {}, label(scenario, cell))] : [], el("td", {}, seed), el("td", { className: "mono" }, hash),
      el("td", { className: broken ? "bad" : "soft" }, broken ?? "kept"), el("td", {}, copy("Copy replay", replay(cell, seed), `seed ${seed}`)));
    const body = el("tbody", {}, ...all.slice(0, ROWS_MAX).map(row));
    host.replaceChildren(el("div", { className: "scroll", tabIndex: 0, role: "region", ariaLabel: `Runs of ${scenario.name}` }, el("table", {},
      el("thead", {}, el("tr", {}, ...[...keyed ? ["cell"] : [], "seed", "trace hash", "checks", ""].map(it => el("th", { scope: "col" }, it)))), body)));
    if (all.length > ROWS_MAX) {
      const more = el("button", { type: "button", className: "plain" }, `Show all ${text(all.length, 0)} runs`);
      more.addEventListener("click", () => { body.append(...all.slice(ROWS_MAX).map(row)); more.remove(); });
      host.append(more);
    }
  }

  // A scenario is drawn when it comes near to the window, for a report may have many.
  function fill(section) {
    if (section.dataset.filled) return;
    section.dataset.filled = "yes";
    const scenario = SCENARIOS[section.dataset.at], drawn = section.querySelector(".drawn");
    const cells = scenario.cells;
    if (scenario.keys.length && scenario.metrics.length) sweep(scenario, drawn);
    if (cells.some(cell => cell.band[0].length)) curves(scenario, drawn);
    if (cells.some(cell => cell.spread.length)) world(scenario, drawn);
    if (!scenario.keys.length && cells.length) {
      const all = cells[0].full ? [el("span", { className: "soft" }, `runs in which every node had everything: ${complete(cells[0], cells[0].runs)}`)] : [];
      drawn.append(el("section", { className: "panel" }, el("div", { className: "top" }, el("h3", {}, "Figures"), ...all), metricTable(scenario)));
    }
    const folded = section.querySelector(".runs");
    folded.addEventListener("toggle", () => { if (folded.open && !folded.dataset.filled) { folded.dataset.filled = "yes"; runs(scenario, folded.querySelector(".rows")); } });
  }
  const sections = [...document.querySelectorAll(".scenario")];
  const near = new IntersectionObserver(entries => {
    for (const { isIntersecting, target } of entries) if (isIntersecting) { near.unobserve(target); fill(target.closest(".scenario")); }
  }, { rootMargin: "600px 0px" });
  for (const section of sections) near.observe(section.querySelector(".body"));

  const unfold = open => { for (const section of sections) section.open = open; };
  document.getElementById("unfold").addEventListener("click", () => unfold(true));
  document.getElementById("fold").addEventListener("click", () => unfold(false));
  const only = document.getElementById("only");
  only.addEventListener("change", () => document.body.classList.toggle("only", only.checked));
  const index = document.getElementById("index");
  if (narrow.matches) index.open = false;
  const follow = () => {
    const section = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (!section?.classList.contains("scenario")) return;
    section.open = true;
    fill(section);
    section.scrollIntoView();
  };
  addEventListener("hashchange", follow);
  addEventListener("beforeprint", () => { unfold(true); sections.forEach(fill); });

  // Light and dark.
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const redraw = () => { for (const draw of redraws) draw(); };
  const kept = () => { try { return localStorage.getItem("aop-theme"); } catch { return null; } };
  if (["light", "dark"].includes(kept())) root.dataset.theme = kept();
  document.getElementById("theme").addEventListener("click", () => {
    root.dataset.theme = (root.dataset.theme ?? (dark.matches ? "dark" : "light")) === "dark" ? "light" : "dark";
    try { localStorage.setItem("aop-theme", root.dataset.theme); } catch { /* a browser that keeps nothing forgets it */ }
    redraw();
  });
  dark.addEventListener("change", redraw);
  follow();
})();
