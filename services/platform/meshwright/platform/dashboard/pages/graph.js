// The graph of calls: workloads in columns by their distance from whoever calls first, edges with their counts.

import { quiet, svg } from "./dom.js";

const WIDTH = 150, HEIGHT = 44, GAP_X = 120, GAP_Y = 26, MARGIN = 14;

export function graph(mesh) {
  const proxies = new Map(mesh.proxies.map((proxy) => [proxy.workload.split(".")[0], proxy]));
  const names = new Set([...proxies.keys(), ...mesh.workloads.map((name) => name.split(".")[0])]);
  // Workloads that share an identity call together: an edge from each, the count at the first.
  const calls = mesh.calls.flatMap((call) => call.from.map((from, index) => ({
    ...call, from, label: index ? "" : count(call.requests) + (call.from.length > 1 ? " together" : "")
      + (call.bad ? `, ${count(call.bad)} bad` : ""),
  }))).filter((call) => call.from !== call.to && call.to !== "unknown");
  for (const call of calls) names.add(call.from).add(call.to);
  if (names.size === 0) return quiet("No workload is in the mesh yet.");
  const columns = layered([...names].sort(), calls);
  const places = new Map();
  const tallest = Math.max(...columns.map((column) => column.length));
  const height = 2 * MARGIN + tallest * (HEIGHT + GAP_Y) - GAP_Y;
  columns.forEach((column, x) => {
    const top = (height - column.length * (HEIGHT + GAP_Y) + GAP_Y) / 2;
    column.forEach((name, y) => places.set(name, { x: MARGIN + x * (WIDTH + GAP_X), y: top + y * (HEIGHT + GAP_Y) }));
  });
  const width = 2 * MARGIN + columns.length * (WIDTH + GAP_X) - GAP_X;
  const arrow = svg("marker", { id: "arrow", viewBox: "0 0 8 8", refX: 7, refY: 4, markerWidth: 8, markerHeight: 8, orient: "auto" },
    svg("path", { d: "M0 0 8 4 0 8z" }));
  const title = `Graph of ${names.size} workloads and ${calls.length} kinds of calls`;
  return svg("svg", { viewBox: `0 0 ${width} ${height}`, width, role: "img", "aria-label": title },
    svg("title", {}, title), svg("defs", {}, arrow),
    ...calls.flatMap((call) => edge(call, places)),
    ...[...places].map(([name, place]) => node(name, place, proxies.get(name), mesh.revision)));
}

// Columns by the longest way from a root; calls that lead back don't count.
function layered(names, calls) {
  const depth = new Map(names.map((name) => [name, 0]));
  for (let round = 0; round < names.length; round++) {
    let changed = false;
    for (const { from, to } of calls) {
      if (depth.get(to) <= depth.get(from) && depth.get(from) + 1 < names.length) {
        depth.set(to, depth.get(from) + 1);
        changed = true;
      }
    }
    if (!changed) break;
  }
  const levels = [...new Set(depth.values())].sort((one, other) => one - other);
  return levels.map((level) => names.filter((name) => depth.get(name) === level));
}

function node(name, { x, y }, proxy, revision) {
  const behind = proxy && (proxy.error || proxy.revision < revision);
  const below = proxy ? (behind ? `revision ${proxy.revision} of ${revision}` : `revision ${proxy.revision}`) : "no proxy";
  return svg("g", { class: `node ${proxy ? "member" : ""} ${behind ? "behind" : ""}` },
    svg("rect", { x, y, width: WIDTH, height: HEIGHT, rx: 6 }),
    svg("text", { x: x + 12, y: y + 19 }, name),
    svg("text", { x: x + 12, y: y + 35, class: "small" }, below));
}

function edge(call, places) {
  const one = places.get(call.from), other = places.get(call.to);
  const from = { x: one.x + WIDTH, y: one.y + HEIGHT / 2 }, to = { x: other.x - 2, y: other.y + HEIGHT / 2 };
  const middle = (from.x + to.x) / 2;
  return [
    svg("path", { class: `edge ${call.bad ? "failing" : ""}`, "marker-end": "url(#arrow)",
      d: `M${from.x} ${from.y} C${middle} ${from.y} ${middle} ${to.y} ${to.x} ${to.y}` }),
    svg("text", { x: middle, y: (from.y + to.y) / 2 - 6, class: "small", "text-anchor": "middle" }, call.label),
  ];
}

function count(number) {
  return number.toLocaleString("en");
}
