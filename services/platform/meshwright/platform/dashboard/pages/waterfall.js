// Traces as waterfalls: each span a bar from when it began, below the span that caused it.

import { element, quiet, svg } from "./dom.js";

export function waterfalls(traces, open) {
  if (!traces.length) return [quiet("No trace has come yet.")];
  return traces.map((trace, index) => {
    const root = trace.spans[0];
    const services = new Set(trace.spans.map((span) => span.service)).size;
    const when = new Date(trace.at * 1000).toLocaleTimeString();
    const summary = `${when} · ${root.service}: ${root.name} · ${trace.spans.length} spans of ${services} services · ${ms(trace.ms)}`;
    const isOpen = open.size ? open.has(trace.id) : index === 0;
    const made = element("details", isOpen ? { open: "", "data-id": trace.id } : { "data-id": trace.id },
      element("summary", {}, summary));
    made.append(fall(trace));
    return made;
  });
}

function fall(trace) {
  const rows = ordered(trace.spans).flatMap(({ span, depth }) => [
    element("span", { class: "name", title: `${span.service}: ${span.name}` },
      `${"\u2003".repeat(Math.min(depth, 8))}${span.service}: ${span.name}`),
    svg("svg", { viewBox: "0 0 1000 16", preserveAspectRatio: "none", "aria-hidden": "true" },
      svg("rect", { class: span.error ? "bar failed" : "bar", y: 3, height: 10, rx: 2,
        x: 1000 * span.start / trace.ms, width: Math.max(2, 1000 * span.ms / trace.ms) })),
    element("span", { class: "ms" }, ms(span.ms)),
  ]);
  return element("div", { class: "fall" }, ...rows);
}

function ordered(spans) {
  const below = new Map();
  for (const span of spans) below.set(span.parent, [...(below.get(span.parent) || []), span]);
  const found = [];
  const walk = (parent, depth) => {
    for (const span of (below.get(parent) || []).sort((one, other) => one.start - other.start)) {
      if (found.length > spans.length) return; // ids are the callers': they may form a ring
      found.push({ span, depth });
      walk(span.id, depth + 1);
    }
  };
  walk("", 0);
  return found;
}

export function ms(value) {
  return value >= 1000 ? `${(value / 1000).toFixed(2)} s` : `${value.toFixed(value < 10 ? 2 : 1)} ms`;
}
