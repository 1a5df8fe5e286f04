// What every part of the page uses. The document is built with createElement and textContent only: names come from strangers.
export const $ = (id) => document.getElementById(id);
export const el = (tag, cls, text) => { const e = document.createElement(tag); if (cls) e.className = cls; if (text !== undefined) e.textContent = text; return e; };
export const svg = (tag, attrs, text) => { const e = document.createElementNS("http://www.w3.org/2000/svg", tag); for (const k in attrs) e.setAttribute(k, attrs[k]); if (text !== undefined) e.textContent = text; return e; };

export const bytes = (n) => { const u = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"]; let i = 0; while (Math.abs(n) >= 1023.95 && i < u.length - 1) { n /= 1024; i++; } return (i === 0 || n >= 99.95 ? n.toFixed(0) : n.toFixed(1)) + " " + u[i]; };
export const span = (s) => s <= 0 ? "0 s" : s < 60 ? s.toFixed(s < 1 ? 2 : 1) + " s" : s < 3600 ? `${Math.floor(s / 60)}m${String(Math.floor(s % 60)).padStart(2, "0")}s` : s < 86400 ? `${Math.floor(s / 3600)}h${String(Math.floor(s / 60 % 60)).padStart(2, "0")}m` : `${Math.floor(s / 86400)}d${String(Math.floor(s / 3600 % 24)).padStart(2, "0")}h`;
export const count = (n) => n.toLocaleString("en").replaceAll(",", "\u2009");

// button makes one that keeps the keyboard's place when the page is drawn anew, by its key.
export function button(text, label, key, click) {
  const b = el("button", "", text);
  b.type = "button"; b.dataset.key = key; b.onclick = click;
  b.setAttribute("aria-label", label);
  return b;
}

// focusKey gives the keyboard's place to the element of that key, which may be another one than it was.
export const focusKey = (key) => key && [...document.querySelectorAll("[data-key]")].find((e) => e.dataset.key === key)?.focus({ preventScroll: true });

// ask opens a dialog and tells whether it was closed with ok.
export function ask(dialog) {
  const key = document.activeElement?.dataset?.key;
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((r) => dialog.addEventListener("close", () => { focusKey(key); r(dialog.returnValue === "ok"); }, { once: true }));
}

export function event(text, bad) {
  const list = $("events"), li = el("li", bad ? "bad" : "");
  list.querySelector(".none")?.remove();
  const t = el("time", "", new Date().toLocaleTimeString("en-GB"));
  li.append(t, text);
  list.prepend(li);
  while (list.children.length > 100) list.lastChild.remove();
}
