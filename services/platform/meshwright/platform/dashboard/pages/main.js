// Draws each picture that the server sends. What a person has opened stays open.

import { element, marked, quiet, table } from "./dom.js";
import { graph } from "./graph.js";
import { ms, waterfalls } from "./waterfall.js";

const place = (id) => document.getElementById(id);
const time = (seconds) => new Date(seconds * 1000).toLocaleTimeString();

function piece(id, answer, draw) {
  place(id).replaceChildren(...(answer.error ? [marked(answer.error, false)] : [draw(answer.value)].flat()));
}

function proxies(mesh) {
  if (!mesh.proxies.length) return quiet("No proxy is connected.");
  return table(["workload", "identity", "revision#", "state"], mesh.proxies.map((proxy) => [
    proxy.workload, proxy.identity, proxy.revision,
    proxy.error ? marked(proxy.error, false)
      : proxy.revision < mesh.revision ? marked("behind", false) : marked("current", true),
  ]));
}

function network(services) {
  const heading = element("h3", {}, "Network services");
  if (!services.length) return [heading, quiet("None is registered.")];
  return [heading, element("ul", { class: "chips" }, ...services.map((service) =>
    element("li", {}, `${service.name} (${service.payload || "any"}) ← ${service.endpoints.join(", ") || "no endpoint"}`)))];
}

function decisions(found) {
  if (!found.length) return quiet("No decision has been traced yet.");
  return table(["time", "asked by", "decision", "rule"], found.map((one) => {
    const refused = one.decision === "deny" || one.quota === "refused";
    const quota = one.quota ? `, quota ${one.quota}` : "";
    return [time(one.at), one.subject || "–", marked(`${one.decision}${quota}`, !refused), one.rule || "–"];
  }));
}

function performance(runs) {
  if (!runs.length) return quiet("No test has run here: meshwright perf apply.");
  return table(["run", "requests/s#", "p50#", "p90#", "p99#", "max#"], runs.map((run) =>
    [run.name, run.rate.toFixed(1), ms(run.p50), ms(run.p90), ms(run.p99), ms(run.max)]));
}

function parts(all) {
  return table(["part", "state", "restarts#"], all.map((part) => [
    part.name,
    marked(part.reason ? `${part.state}: ${part.reason}` : part.state, part.state === "healthy"),
    part.restarts,
  ]));
}

function draw(picture) {
  const healthy = picture.parts.filter((part) => part.state === "healthy").length;
  const revision = picture.mesh.value ? `, revision ${picture.mesh.value.revision}` : "";
  place("state").textContent = `${healthy} of ${picture.parts.length} parts healthy${revision}`;
  piece("graph", picture.mesh, graph);
  piece("proxies", picture.mesh, proxies);
  piece("network", picture.network, network);
  piece("decisions", picture.decisions, decisions);
  const open = new Set([...document.querySelectorAll("#traces details[open]")].map((one) => one.dataset.id));
  piece("traces", picture.traces, (traces) => waterfalls(traces, open));
  piece("performance", picture.performance, performance);
  place("parts").replaceChildren(parts(picture.parts));
  document.body.dataset.drawn = "yes";
}

const events = new EventSource("events");
events.onmessage = (event) => draw(JSON.parse(event.data));
events.onerror = () => { place("state").textContent = "the platform doesn't answer; trying again …"; };
