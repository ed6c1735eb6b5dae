"use strict";
(() => {
  const found = JSON.parse(document.getElementById("data").textContent);
  const colours = ["#3b82f6", "#f59e0b", "#10b981", "#ef4444", "#8b5cf6", "#14b8a6", "#ec4899", "#84cc16"];
  const colour = (name) => () => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const plots = [];

  const draw = (root, data, series, labels, more) => {
    const axis = { stroke: colour("--ink"), grid: { stroke: colour("--faint") }, ticks: { stroke: colour("--faint") } };
    const size = () => ({ width: Math.max(280, root.clientWidth), height: 280 });
    const plot = new uPlot({
      ...size(), series, axes: [{ ...axis, label: labels[0], ...more.x }, { ...axis, label: labels[1], size: 64 }],
      scales: { x: { time: false }, y: { range: (_, low, high) => [0, high > 0 ? high * 1.05 : 1] } }, plugins: more.plugins || [],
    }, data, root);
    plots.push([plot, size]);
  };
  const joined = (runs, pick) => {
    const xs = [...new Set(runs.flatMap((run) => run.x))].sort((a, b) => a - b);
    const data = [xs], names = [];
    for (const run of runs) for (const [name, values] of Object.entries(run.series)) {
      if (!pick(name)) continue;
      const at = new Map(run.x.map((x, i) => [x, values[i]]));
      data.push(xs.map((x) => (at.has(x) ? at.get(x) : null)));
      names.push([run.name, name]);
    }
    return [data, names];
  };

  const overTime = () => {
    const root = document.getElementById("over-time"), runs = found.over_time, several = runs.length > 1;
    if (!root) return;
    const [data, names] = joined(runs, (name) => !several || name === "all");
    if (!data[0].length) { root.textContent = "The records say no times."; return; }
    const label = ([run, name]) => several ? run : name === "all" ? "all devices" : "device " + name;
    const line = (name, i) => ({ label: label(name), stroke: colours[i % colours.length], width: 1.5, spanGaps: true });
    const mark = (plot, x, stroke, height) => {
      const { ctx, bbox } = plot, px = plot.valToPos(x, "x", true);
      if (px < bbox.left || px > bbox.left + bbox.width) return;
      ctx.strokeStyle = stroke; ctx.beginPath();
      ctx.moveTo(px, bbox.top + bbox.height); ctx.lineTo(px, bbox.top + bbox.height * (1 - height)); ctx.stroke();
    };
    const marks = { hooks: { draw: (plot) => {
      plot.ctx.save();
      for (const run of runs) {
        for (const [x] of run.restarts) mark(plot, x, "#f97316", 1);
        for (const x of run.failures) mark(plot, x, "#ef4444", 0.06);
      }
      plot.ctx.restore();
    } } };
    draw(root, data, [{ label: "s" }, ...names.map(line)], ["seconds", "samples a second"], { plugins: [marks] });
  };

  const scaling = () => {
    const root = document.getElementById("scaling"), runs = found.curves, several = runs.length > 1;
    if (!root) return;
    const [data, names] = joined(runs, () => true);
    const line = ([run, name], i) => ({
      label: several ? run + ", " + name : name, stroke: colours[Math.floor(i / 2) % colours.length], width: 2,
      points: { show: name === "measured", size: 8 }, ...(name === "ideal" ? { dash: [6, 6], width: 1 } : {}),
    });
    const whole = { splits: () => data[0], values: (_, ticks) => ticks.map(String) };
    draw(root, data, [{ label: "devices" }, ...names.map(line)], ["devices", "runs a second"], { x: whole });
  };

  overTime();
  scaling();
  const redraw = () => { for (const [plot] of plots) plot.redraw(false, true); };
  addEventListener("resize", () => { for (const [plot, size] of plots) plot.setSize(size()); });
  addEventListener("beforeprint", redraw);
  addEventListener("afterprint", redraw);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
})();
