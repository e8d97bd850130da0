// Elements from values. Text is always set as text, never as markup: names come from whoever calls.

const SVG = "http://www.w3.org/2000/svg";

export function element(name, attributes = {}, ...children) {
  return fill(document.createElement(name), attributes, children);
}

export function svg(name, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, name), attributes, children);
}

function fill(made, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== undefined && value !== null) made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

export function table(columns, rows) {
  const numeric = (index) => (columns[index].endsWith("#") ? "number" : undefined);
  const head = columns.map((name, index) =>
    element("th", { scope: "col", class: numeric(index) }, name.replace("#", "")));
  const body = rows.map((cells) => element("tr", {}, ...cells.map((cell, index) =>
    element("td", { class: numeric(index) }, cell instanceof Node ? cell : String(cell)))));
  return element("table", {}, element("thead", {}, element("tr", {}, ...head)), element("tbody", {}, ...body));
}

export function quiet(text) {
  return element("p", { class: "quiet" }, text);
}

export function marked(text, good) {
  return element("span", { class: good ? "good" : "bad" }, text);
}
