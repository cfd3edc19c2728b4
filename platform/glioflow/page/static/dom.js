// Elements are created here and never parsed from text, so that names and messages are shown literally.

export const $ = (selector, root = document) => root.querySelector(selector);

// h("button", {class: "x", onclick: f, "aria-label": "y"}, child, ...): null children are skipped.
export function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on") || name === "value" || name === "checked" || name === "disabled") element[name] = value;
    else if (name === "style") for (const [key, text] of Object.entries(value)) element.style.setProperty(key, text);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

export const options = (entries) => entries.map(([value, text]) => h("option", { value }, text));

// Replaces a place's children. The focus stays on the control that says the same, or else stands at the same position.
export function renew(place, ...children) {
  const controls = () => [...place.querySelectorAll("button, input, select, summary")], held = controls().indexOf(document.activeElement);
  const text = document.activeElement?.textContent;
  place.replaceChildren(...children);
  if (held >= 0) (controls().find((each) => each.textContent === text) ?? controls()[held])?.focus({ preventScroll: true });
}

// A message for screen readers (politely), shown to everybody in the corner of the page.
export function say(text, kind = "") {
  const message = $("#message");
  const close = h("button", { type: "button", onclick: () => say("") }, "Close"); // what went wrong stays until it is read
  message.replaceChildren(text, ...(kind === "bad" ? [" ", close] : []));
  message.className = kind;
  message.hidden = !text;
  clearTimeout(say.timer);
  if (text && kind !== "bad") say.timer = setTimeout(() => { message.hidden = true; }, 6000);
}

export function save(blob, name) {
  const link = h("a", { href: URL.createObjectURL(blob), download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(link.href), 5000);
}

export const thousands = (count) => Math.round(count).toLocaleString("en").replaceAll(",", "\u202f");
// Counts in full, other values in `digits` digits.
export const number = (value, digits = 4) => (Number.isInteger(value) ? value : Number(value.toPrecision(digits))).toLocaleString("en", { maximumFractionDigits: 6 }).replaceAll(",", "\u202f");
