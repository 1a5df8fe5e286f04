// The page asks /api/sites each second and draws what it hears.
import { $, bytes, button, count, el, event, focusKey, span, svg } from "./dom.js";
import { allow, changeMirror, promote, secret, snapshot } from "./act.js";
import { showPast } from "./past.js";

const keep = 300; // seconds of the charts

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
    d.append(button(op, `${op} mirror ${m.id} of ${v.name}`, `${v.name}/${m.id}`, () => changeMirror(v, m, op, look)));
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

const space = (s) => (s.capacity_bytes ? `capacity ${bytes(s.capacity_bytes)}, ` : "") + `${bytes(s.live_bytes)} live, ${bytes(s.garbage_bytes)} garbage, ${s.segments_free} segments free`
  + (s.write_amplification ? `, write amplification ${s.write_amplification.toFixed(2)}` : "") + (s.writes_waiting ? `; ${s.writes_waiting} writes wait for space` : "");

function card(site, v) {
  const c = el("article", "card" + (v.error ? " bad" : ""));
  c.tabIndex = -1; c.dataset.key = site.name + "/" + v.name;
  const head = el("div", "head");
  head.append(el("h3", "", v.name), el("span", "role", v.role));
  c.append(head, el("p", "fact", v.size ? `${bytes(v.size)}, ${bytes(v.used_bytes)} used, ${bytes(v.physical_bytes)} on disk` : "size comes from its source"));
  if (v.space) c.append(el("p", "fact", space(v.space)));
  if (v.error) c.append(el("p", "wrong", v.error));
  if (v.checksum_errors) c.append(el("p", "wrong", `${v.checksum_errors} reads did not match their checksum`));
  if (v.role !== "failed") c.append(strip(v));
  if (v.source) c.append(el("p", "fact", v.source.connected ? `fed by ${v.source.address}` : v.source.address ? `source ${v.source.address} gone for ${span(v.source.silent_seconds)}` : v.role === "mirror" ? "waits for its source" : ""));
  c.append(deeds(site, v));
  v.mirrors.forEach((m) => c.append(mirror(site, v, m)));
  return c;
}

// deeds are what can be done with a volume: its past is for everybody to look at.
function deeds(site, v) {
  const d = el("div", "deeds"), at = site.name + "/" + v.name, open = v.role === "primary" || v.role === "mirror";
  if (v.history_from || v.snapshots) d.append(button("history", `history of ${v.name}`, at + " history", () => showPast(site, v)));
  if (site.self && secret() && open) {
    d.append(button("snapshot", `make a snapshot of ${v.name}`, at + " snapshot", () => snapshot(v, look)));
    if (v.role === "mirror") d.append(button("promote", `make ${v.name} the primary`, at + " promote", () => promote(v, look)));
  }
  if (v.history_from || v.snapshots) d.append(el("span", "fact", (v.history_from ? `each moment since ${new Date(v.history_from).toLocaleString("en-GB")}` : "") + (v.history_from && v.snapshots ? ", " : "") + (v.snapshots ? `${v.snapshots} snapshot${v.snapshots === 1 ? "" : "s"}` : "")));
  return d;
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
  // One sample alone would be shown as a span of years.
  const one = times.length === 1;
  const data = [one ? [times[0] - 10, ...times] : times, ...names.map((n) => one ? [null, ...series.get(n)] : series.get(n))], box = $(id);
  const css = (v) => getComputedStyle(document.documentElement).getPropertyValue(v).trim();
  if (!plots[id] || plots[id].key !== key) {
    plots[id]?.u.destroy();
    const axis = { stroke: css("--dim"), grid: { stroke: css("--line"), width: 1 }, ticks: { stroke: css("--line") } };
    const u = new uPlot({ width: Math.max(240, box.clientWidth), height: 190, cursor: { sync: { key: "cawrm" } }, scales: { x: { range: (_, lo, hi) => [Math.min(lo, hi - 10), hi] }, y: { range: (_, lo, hi) => [0, Math.max(hi * 1.1, 0.1)] } },
      axes: [axis, { ...axis, size: 56 }], series: [{}, ...names.map((n, i) => ({ label: n.slice(prefix.length), stroke: colours[i % colours.length], width: 1.5, value: (_, x) => x == null ? "–" : x.toFixed(2) }))] }, data, box);
    plots[id] = { u, key };
  } else plots[id].u.setData(data);
}
addEventListener("resize", () => { for (const id in plots) plots[id].u.setSize({ width: Math.max(240, $(id).clientWidth), height: 190 }); });

function draw(answer) {
  const now = Date.now() / 1000, focus = document.activeElement?.dataset?.key;
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
  focusKey(focus);
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
    const answer = await r.json();
    if (!document.querySelector("#sites button:active")) draw(answer); // not under a finger
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
function step(by) {
  const cards = [...document.querySelectorAll(".card")];
  if (cards.length) cards[(cards.indexOf(document.activeElement.closest?.(".card")) + by + cards.length) % cards.length].focus();
}
$("theme").onclick = theme; $("token").onclick = () => allow(look); $("keys").onclick = () => $("help").showModal();
addEventListener("keydown", (e) => {
  if (e.ctrlKey || e.altKey || e.metaKey || e.target.matches("input, select") || document.querySelector("dialog[open]")) return;
  ({ j: () => step(1), k: () => step(-1), t: theme, a: () => { e.preventDefault(); allow(look); }, h: () => document.activeElement.closest?.(".card")?.querySelector("[data-key$=' history']")?.click(), "?": () => $("help").showModal() })[e.key]?.();
});
const chosen = localStorage.getItem("theme");
if (chosen) document.documentElement.dataset.theme = chosen;
look();
setInterval(() => { if (!document.hidden) look(); }, 1000);
