"use strict";
(() => {
  const runs = JSON.parse(document.getElementById("data").textContent);
  const root = document.getElementById("over-time");
  const style = getComputedStyle(document.documentElement);
  const ink = style.getPropertyValue("--ink").trim(), faint = style.getPropertyValue("--faint").trim();
  const colours = ["#3b82f6", "#f59e0b", "#10b981", "#ef4444", "#8b5cf6", "#14b8a6", "#ec4899", "#84cc16"];
  const xs = [...new Set(runs.flatMap((run) => run.x))].sort((a, b) => a - b);
  if (!xs.length) { root.textContent = "The records say no times."; return; }
  const several = runs.length > 1;
  const data = [xs], series = [{ label: "s" }];
  for (const run of runs) {
    for (const [name, values] of Object.entries(run.series)) {
      if (several && name !== "all") continue;
      const at = new Map(run.x.map((x, i) => [x, values[i]]));
      data.push(xs.map((x) => (at.has(x) ? at.get(x) : null)));
      const label = several ? run.name : name === "all" ? "all devices" : "device " + name;
      series.push({ label, stroke: colours[(series.length - 1) % colours.length], width: 1.5, spanGaps: true });
    }
  }
  const marks = {
    hooks: {
      draw: (plot) => {
        const ctx = plot.ctx;
        ctx.save();
        ctx.strokeStyle = "#ef4444";
        for (const run of runs) for (const x of run.failures) {
          const px = plot.valToPos(x, "x", true);
          ctx.beginPath(); ctx.moveTo(px, plot.bbox.top + plot.bbox.height);
          ctx.lineTo(px, plot.bbox.top + plot.bbox.height - 12); ctx.stroke();
        }
        ctx.restore();
      },
    },
  };
  const axis = { stroke: ink, grid: { stroke: faint }, ticks: { stroke: faint } };
  const size = () => ({ width: Math.max(280, root.clientWidth), height: 280 });
  const plot = new uPlot({
    ...size(), series, plugins: [marks], scales: { x: { time: false } },
    axes: [{ ...axis, label: "seconds" }, { ...axis, label: "samples a second", size: 64 }],
  }, data, root);
  addEventListener("resize", () => plot.setSize(size()));
})();
