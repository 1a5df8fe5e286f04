// The page asks /api/sites each second and draws what it hears. It builds the document with createElement and textContent only:
// names come from strangers.
"use strict";
(() => {
const $ = (id) => document.getElementById(id);
const keep = 300; // seconds of the charts
const el = (tag, cls, text) => { const e = document.createElement(tag); if (cls) e.className = cls; if (text !== undefined) e.textContent = text; return e; };
const svg = (tag, attrs, text) => { const e = document.createElementNS("http://www.w3.org/2000/svg", tag); for (const k in attrs) e.setAttribute(k, attrs[k]); if (text !== undefined) e.textContent = text; return e; };

const bytes = (n) => { const u = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"]; let i = 0; while (Math.abs(n) >= 1023.95 && i < u.length - 1) { n /= 1024; i++; } return (i === 0 || n >= 99.95 ? n.toFixed(0) : n.toFixed(1)) + " " + u[i]; };
const span = (s) => s <= 0 ? "0 s" : s < 60 ? s.toFixed(s < 1 ? 2 : 1) + " s" : s < 3600 ? `${Math.floor(s / 60)}m${String(Math.floor(s % 60)).padStart(2, "0")}s` : s < 86400 ? `${Math.floor(s / 3600)}h${String(Math.floor(s / 60 % 60)).padStart(2, "0")}m` : `${Math.floor(s / 86400)}d${String(Math.floor(s / 3600 % 24)).padStart(2, "0")}h`;
const count = (n) => n.toLocaleString("en").replaceAll(",", "\u2009");

// A log strip: the end of the log, from a little before the mirror that is furthest behind, with a mark for each pointer.
function strip(v) {
  const W = 540, H = 64, top = 22, h = 14;
  const low = Math.min(v.durable_ptr, ...v.mirrors.map((m) => m.sync_ptr));
  const width = Math.max((v.end_ptr - low) * 1.15, 1);
  const from = Math.max(0, v.end_ptr - width);
  const x = (p) => 6 + (W - 12) * Math.min(1, Math.max(0, (p - from) / Math.max(v.end_ptr - from, 1)));
  const said = `end_ptr ${v.end_ptr}, durable_ptr ${v.durable_ptr}` + v.mirrors.map((m) => `, sync_ptr of ${m.id} ${m.sync_ptr}`).join("");
  const s = svg("svg", { class: "strip", viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": said });
  s.append(svg("title", {}, said), svg("rect", { class: "log", x: 6, y: top, width: W - 12, height: h, rx: 3 }));
  if (low < v.durable_ptr) s.append(svg("rect", { class: "durable", x: x(low), y: top, width: Math.max(1, x(v.durable_ptr) - x(low)), height: h }));
  if (v.durable_ptr < v.end_ptr) s.append(svg("rect", { class: "tail", x: x(v.durable_ptr), y: top, width: Math.max(1, x(v.end_ptr) - x(v.durable_ptr)), height: h }));
  const mark = (p, text, y, cls) => {
    const g = svg("g", { class: cls }), at = x(p), right = at > W / 2;
    g.append(svg("line", { x1: at, x2: at, y1: y < top ? top - 5 : top, y2: y < top ? top + h : top + h + 5 }),
      svg("text", { x: right ? at : at, y, "text-anchor": right ? "end" : "start" }, text));
    s.append(g);
  };
  mark(v.end_ptr, v.end_ptr === v.durable_ptr ? `end_ptr = durable_ptr ${count(v.end_ptr)}` : `end_ptr ${count(v.end_ptr)}`, 12, "e");
  if (v.durable_ptr !== v.end_ptr && x(v.end_ptr) - x(v.durable_ptr) > 170) mark(v.durable_ptr, `durable_ptr ${count(v.durable_ptr)}`, 12, "d");
  v.mirrors.slice(0, 2).forEach((m, i) => mark(m.sync_ptr, `${m.id} sync_ptr ${count(m.sync_ptr)}`, top + h + 14 + 11 * i, "m"));
  return s;
}

function mirror(site, v, m) {
  const d = el("div", "mirror"), title = el("div");
  title.append(el("b", "", m.id), " ", el("span", "state " + m.state, m.state));
  d.append(title);
  if (site.self && secret()) {
    const op = m.state === "paused" ? "resume" : "pause";
    const b = el("button", "", op);
    b.type = "button";
    b.setAttribute("aria-label", `${op} mirror ${m.id} of ${v.name}`);
    b.dataset.key = `${v.name}/${m.id}`;
    b.onclick = () => act(`${op} mirror ${m.id} of ${v.name}?`, { volume: v.name, id: m.id, op });
    d.append(b);
  } else d.append(el("span"));
  const lag = el("div", "lag wide");
  if (m.lag_records === 0) lag.textContent = "lacks nothing";
  else lag.append("lacks ", el("b", "", span(m.lag_seconds)), ` · ${bytes(m.lag_bytes)} · ${count(m.lag_records)} records` + (m.rate_bps > 0 ? ` · ${bytes(m.rate_bps / 8)}/s` : "") + (m.eta_seconds > 0 ? ` · ${span(m.eta_seconds)} left` : ""));
  d.append(lag);
  if (m.state === "syncing" && m.lag_records > 0) {
    const p = el("progress", "wide");
    p.max = 1; p.value = v.durable_ptr > 0 ? Math.min(0.994, (m.sync_ptr + m.epoch_progress * (v.durable_ptr - m.sync_ptr)) / v.durable_ptr) : 0;
    p.setAttribute("aria-label", `mirror ${m.id}: caught up`);
    d.append(p);
  }
  if (m.state === "down" && m.last_error) d.append(el("div", "wrong wide", m.last_error));
  d.append(el("div", "fact wide", m.url));
  return d;
}

function card(site, v) {
  const c = el("article", "card" + (v.error ? " bad" : ""));
  c.tabIndex = -1; c.dataset.key = site.name + "/" + v.name;
  const head = el("div", "head");
  head.append(el("h3", "", v.name), el("span", "role", v.role));
  c.append(head, el("p", "fact", v.size ? `${bytes(v.size)}, ${bytes(v.used_bytes)} used, ${bytes(v.physical_bytes)} on disk` : "size comes from its source"));
  if (v.error) c.append(el("p", "wrong", v.error));
  if (v.checksum_errors) c.append(el("p", "wrong", `${v.checksum_errors} reads did not match their checksum`));
  if (v.role !== "failed") c.append(strip(v));
  if (v.source) c.append(el("p", "fact", v.source.connected ? `fed by ${v.source.address}` : v.source.address ? `source ${v.source.address} gone for ${span(v.source.silent_seconds)}` : v.role === "mirror" ? "waits for its source" : ""));
  v.mirrors.forEach((m) => c.append(mirror(site, v, m)));
  return c;
}

const secret = () => sessionStorage.getItem("token") || "";

async function act(question, body) {
  $("question").textContent = question;
  $("sure").returnValue = "";
  $("sure").showModal();
  await new Promise((r) => $("sure").addEventListener("close", r, { once: true }));
  if ($("sure").returnValue !== "ok") return;
  try {
    const r = await fetch("api/mirror", { method: "POST", headers: { Authorization: "Bearer " + secret(), "Content-Type": "application/json" }, body: JSON.stringify(body) });
    const a = await r.json();
    if (!r.ok) { event(a.error, true); if (r.status === 401) sessionStorage.removeItem("token"); } else event(`asked: ${body.op} mirror ${body.id} of ${body.volume}`);
  } catch (e) { event(String(e), true); }
  look();
}

function event(text, bad) {
  const list = $("events"), li = el("li", bad ? "bad" : "");
  list.querySelector(".none")?.remove();
  const t = el("time", "", new Date().toLocaleTimeString("en-GB"));
  li.append(t, text);
  list.prepend(li);
  while (list.children.length > 100) list.lastChild.remove();
}

// What changed since the answer before is an event.
const before = new Map();
function notice(key, now, text, bad) {
  const was = before.get(key);
  before.set(key, now);
  if (was !== undefined && was !== now) event(text, bad);
}

const series = new Map(), times = [];
const colours = ["#1f77b4", "#d95f02", "#2ca02c", "#9467bd", "#c2185b", "#00838f", "#8d6e63", "#7f7f7f"];
const last = new Map();
function sample(name, value) {
  if (!series.has(name)) series.set(name, new Array(times.length - 1).fill(null));
  series.get(name).push(value);
}
function rateOf(key, total, now) {
  const l = last.get(key);
  last.set(key, [total, now]);
  return l && now > l[1] ? Math.max(0, (total - l[0]) / (now - l[1])) : null;
}
const plots = {};
function plot(id, prefix) {
  const names = [...series.keys()].filter((n) => n.startsWith(prefix)), key = names.join("|") + document.documentElement.dataset.theme;
  const data = [times, ...names.map((n) => series.get(n))], box = $(id);
  const css = (v) => getComputedStyle(document.documentElement).getPropertyValue(v).trim();
  if (!plots[id] || plots[id].key !== key) {
    plots[id]?.u.destroy();
    const axis = { stroke: css("--dim"), grid: { stroke: css("--line"), width: 1 }, ticks: { stroke: css("--line") } };
    const u = new uPlot({ width: Math.max(240, box.clientWidth), height: 190, cursor: { sync: { key: "cawrm" } }, scales: { y: { range: (_, lo, hi) => [0, Math.max(hi * 1.1, 0.1)] } },
      axes: [axis, { ...axis, size: 56 }], series: [{}, ...names.map((n, i) => ({ label: n.slice(prefix.length), stroke: colours[i % colours.length], width: 1.5, value: (_, x) => x == null ? "–" : x.toFixed(2) }))] }, data, box);
    plots[id] = { u, key };
  } else plots[id].u.setData(data);
}
addEventListener("resize", () => { for (const id in plots) plots[id].u.setSize({ width: Math.max(240, $(id).clientWidth), height: 190 }); });

function draw(answer) {
  const now = Date.now() / 1000, focus = document.activeElement?.dataset?.key, kind = document.activeElement?.tagName;
  times.push(now);
  let volumes = 0, wrong = [], worst = 0;
  const all = document.createDocumentFragment();
  for (const site of answer.sites) {
    const s = el("section");
    s.append(el("h2", "", site.name));
    if (site.error) { s.append(el("p", "wrong", site.error)); wrong.push(site.name + " does not answer"); }
    notice(site.name, !!site.error, site.error ? `${site.name}: ${site.error}` : `${site.name} answers again`, !!site.error);
    const cards = el("div", "cards");
    for (const v of site.status?.volumes || []) {
      volumes++;
      const at = `${site.name}/${v.name}`;
      if (v.error) wrong.push(`${at}: ${v.error}`);
      if (v.role === "primary") sample("rate " + at + " written", (rateOf(at, v.end_ptr, now) ?? 0) * 4096 / 1048576);
      notice(at, v.role, `${at} is ${v.role} now`, v.role === "failed");
      for (const m of v.mirrors) {
        worst = Math.max(worst, m.lag_seconds);
        if (m.state === "down") wrong.push(`mirror ${v.name}/${m.id} is down`);
        const up = m.state === "synced" || m.state === "syncing" ? "connected" : m.state;
        notice(at + "/" + m.id, up, `mirror ${at}/${m.id} is ${up}` + (up === "down" ? ": " + m.last_error : ""), up === "down");
        sample("lag " + at + "/" + m.id, m.lag_seconds);
        sample("rate " + at + "/" + m.id, m.rate_bps / 8 / 1048576);
      }
      cards.append(card(site, v));
    }
    if (!site.error && !site.status.volumes.length) cards.append(el("p", "fact", "no volumes; cawrm volume add NAME PATH adds one"));
    s.append(cards);
    all.append(s);
  }
  for (const list of series.values()) if (list.length < times.length) list.push(null);
  if (times.length > keep) { times.shift(); for (const list of series.values()) list.shift(); }
  $("sites").replaceChildren(all);
  if (focus) [...document.querySelectorAll(kind.toLowerCase())].find((e) => e.dataset.key === focus)?.focus({ preventScroll: true });
  $("summary").className = wrong.length ? "bad" : "";
  $("summary").textContent = wrong.length ? wrong.join(" · ") : `${volumes} volume${volumes === 1 ? "" : "s"}, nothing is wrong` + (worst > 0 ? `; the largest lag is ${span(worst)}` : "");
  $("version").textContent = "cawrm " + answer.version;
  document.title = wrong.length ? "! cawrm" : "cawrm";
  plot("lag", "lag "); plot("rate", "rate ");
}

async function look() {
  try {
    const r = await fetch("api/sites", { cache: "no-store" });
    if (!r.ok) throw new Error(r.statusText);
    draw(await r.json());
  } catch (e) {
    $("summary").className = "bad";
    $("summary").textContent = "the daemon does not answer; what is shown is old";
  }
}

function theme() {
  const dark = document.documentElement.dataset.theme ? document.documentElement.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  localStorage.setItem("theme", document.documentElement.dataset.theme = dark ? "light" : "dark");
  plot("lag", "lag "); plot("rate", "rate ");
}
function allow() {
  if (secret()) { sessionStorage.removeItem("token"); event("actions are off"); look(); return; }
  $("secret").value = ""; $("ask").returnValue = "";
  $("ask").showModal();
  $("ask").addEventListener("close", () => { if ($("ask").returnValue === "ok" && $("secret").value) { sessionStorage.setItem("token", $("secret").value); look(); } }, { once: true });
}
function step(by) {
  const cards = [...document.querySelectorAll(".card")];
  if (cards.length) cards[(cards.indexOf(document.activeElement.closest?.(".card")) + by + cards.length) % cards.length].focus();
}
$("theme").onclick = theme; $("token").onclick = allow; $("keys").onclick = () => $("help").showModal();
addEventListener("keydown", (e) => {
  if (e.ctrlKey || e.altKey || e.metaKey || e.target.matches("input") || document.querySelector("dialog[open]")) return;
  ({ j: () => step(1), k: () => step(-1), t: theme, a: () => { e.preventDefault(); allow(); }, "?": () => $("help").showModal() })[e.key]?.();
});
const chosen = localStorage.getItem("theme");
if (chosen) document.documentElement.dataset.theme = chosen;
look();
setInterval(() => { if (!document.hidden) look(); }, 1000);
})();
