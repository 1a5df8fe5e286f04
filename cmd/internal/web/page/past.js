// The past of a volume as a line of time to pick a moment from: what the history holds, the snapshots on it, and the name under which
// the moment that is picked can be read.
import { $, ask, el, event, svg } from "./dom.js";

const top = 30, thick = 16; // of the line, pixels
let W = 700;
let site, volume, past; // what is shown; past is the answer to /api/history, its times as numbers
let from, to, at;       // the ends of the line, and what is picked: ms since 1970

export async function showPast(s, v) {
  site = s; volume = v;
  const q = new URLSearchParams({ site: s.self ? "" : s.name, volume: v.name });
  try {
    const r = await fetch("api/history?" + q, { cache: "no-store" }), a = await r.json();
    if (!r.ok) throw new Error(a.error);
    // Rounded into the history: the page knows milliseconds, the daemon nanoseconds.
    past = { now: Math.floor(Date.parse(a.now)), begin: a.history_from ? Date.parse(a.history_from) + 1 : null, snapshots: a.snapshots.map((x) => ({ name: x.name, at: Date.parse(x.time) })) };
  } catch (e) { event(`history of ${v.name}: ${e.message}`, true); return; }
  $("pastof").textContent = "History of " + v.name;
  $("window").textContent = past.begin ? `Each moment since ${local(past.begin)} can be read; snapshots are kept until they are deleted.` : "Only snapshots are kept: cawrm serve --history keeps each moment of a window.";
  $("kept").replaceChildren(new Option(past.snapshots.length ? "none" : "there are none", ""), ...past.snapshots.map((x) => new Option(x.name, x.name)));
  zooms();
  show(oldest(), past.now);
  pick(past.begin ? past.now : past.snapshots.at(-1)?.at ?? past.now);
  await ask($("past"));
}

const oldest = () => Math.min(past.now - 1000, past.begin ?? past.now, ...past.snapshots.map((x) => x.at));
const local = (t) => new Date(t).toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "medium" });

// zooms are the stretches of time that the line can show: all there is, the history alone, and its last hour, ten minutes, minute.
function zooms() {
  const all = oldest(), list = [["all", all]];
  if (past.begin && past.begin > all + 1) list.push(["history", past.begin]);
  for (const [name, s] of [["last day", 86400], ["last hour", 3600], ["10 minutes", 600], ["last minute", 60]]) if (past.now - all > s * 1500) list.push([name, past.now - s * 1000]);
  $("zoom").replaceChildren(...list.map(([name, begin]) => {
    const b = el("button", "", name);
    b.type = "button"; b.dataset.from = begin;
    b.onclick = () => { show(begin, past.now); pick(Math.max(at, begin)); };
    return b;
  }));
  $("zoom").hidden = list.length < 2;
}

const x = (t) => 8 + (W - 16) * Math.min(1, Math.max(0, (t - from) / (to - from)));

// show draws the line from one moment to another.
function show(begin, end) {
  from = begin; to = end;
  W = Math.min(736, innerWidth - 32) - 36; // as the style has it: the dialog may not be open yet
  for (const b of $("zoom").children) b.setAttribute("aria-pressed", String(Number(b.dataset.from) === begin));
  const seen = past.snapshots.filter((p) => p.at >= from);
  const s = svg("svg", { viewBox: `0 0 ${W} 84`, role: "img", "aria-label": `from ${local(from)} to ${local(to)}, ${seen.length} snapshots` });
  s.append(svg("rect", { class: "log", x: 8, y: top, width: W - 16, height: thick, rx: 3 }));
  if (past.begin) s.append(svg("rect", { class: "window", x: x(past.begin), y: top, width: Math.max(1, x(to) - x(past.begin)), height: thick }));
  let free = 0; // labels do not overlap: a snapshot without room for its name has its mark alone
  for (const p of seen) {
    const mark = svg("g", {}), left = x(p.at), wide = 6.4 * p.name.length;
    mark.append(svg("title", {}, `${p.name}, ${local(p.at)}`), svg("line", { class: "snap", x1: left, x2: left, y1: top - 7, y2: top + thick }));
    const begins = Math.min(left, W - wide);
    if (begins >= free) { mark.append(svg("text", { x: begins, y: top - 11 }, p.name)); free = begins + wide + 8; }
    s.append(mark);
  }
  const ticks = W < 480 ? 2 : 4, day = to - from > 86400e3;
  for (let i = 0; i <= ticks; i++) {
    const t = from + (to - from) * i / ticks, d = new Date(t);
    s.append(svg("line", { class: "tick", x1: x(t), x2: x(t), y1: top + thick, y2: top + thick + 6 }),
      svg("text", { x: x(t), y: top + thick + 20, "text-anchor": i === 0 ? "start" : i === ticks ? "end" : "middle" },
        i === ticks ? "now" : day ? d.toLocaleString("en-GB", { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" }) : d.toLocaleTimeString("en-GB")));
  }
  s.append(svg("line", { class: "at", x1: 0, x2: 0, y1: top - 4, y2: top + thick + 4 }));
  const point = (e) => { const box = s.getBoundingClientRect(); snap(from + ((e.clientX - box.left) / box.width * W - 8) / (W - 16) * (to - from)); };
  s.onpointerdown = (e) => { s.setPointerCapture(e.pointerId); point(e); };
  s.onpointermove = (e) => { if (e.buttons) point(e); };
  $("line").replaceChildren(s);
  $("slide").min = Math.ceil(from); $("slide").max = Math.floor(to);
  $("slide").step = Math.max(1, Math.round((to - from) / 500));
}

const nearest = (t) => past.snapshots.reduce((a, b) => !a || Math.abs(b.at - t) < Math.abs(a.at - t) ? b : a, undefined);

// snap takes a snapshot that a finger is close to.
function snap(t) {
  const p = nearest(t);
  pick(p && Math.abs(x(p.at) - x(t)) < 6 ? p.at : t);
}

// pick shows a moment, or the snapshot that stands there. Before the history there are only snapshots.
function pick(t, exact) {
  t = Math.round(Math.min(past.now, Math.max(oldest(), t)));
  let p = past.snapshots.find((s) => s.name === exact) ?? past.snapshots.find((s) => s.at === t);
  if (!p && (!past.begin || t < past.begin)) p = nearest(t);
  if (!p && past.begin && t < past.begin) t = past.begin;
  at = p ? p.at : t;
  if (at < from) show(oldest(), past.now);
  const line = $("line").querySelector(".at");
  line.setAttribute("x1", x(at)); line.setAttribute("x2", x(at));
  $("slide").value = at;
  $("slide").setAttribute("aria-valuetext", (p ? `snapshot ${p.name}, ` : "") + local(at));
  const here = new Date(at - new Date(at).getTimezoneOffset() * 60000);
  $("when").value = here.toISOString().slice(0, 23);
  $("kept").value = p ? p.name : "";
  $("ago").textContent = (p ? `Snapshot ${p.name} of ` : "") + `${local(at)}` + (at < past.now ? `, ${words(past.now - at)} before this was opened` : ", when this was opened");
  uses(`${volume.name}@${p ? p.name : new Date(at).toISOString()}`);
}

function words(ms) {
  const s = Math.floor(ms / 1000), two = (a, x, b, y) => `${a} ${x}` + (b ? ` ${b} ${y}` : "");
  return s < 60 ? `${(ms / 1000).toFixed(1)} s` : s < 3600 ? two(Math.floor(s / 60), "min", s % 60, "s") : s < 86400 ? two(Math.floor(s / 3600), "h", Math.floor(s / 60 % 60), "min") : two(Math.floor(s / 86400), "d", Math.floor(s / 3600 % 24), "h");
}

// quote makes one word for a shell of what a stranger may have named.
const quote = (s) => /^[\w@%+=:,./-]+$/.test(s) ? s : "'" + s.replaceAll("'", "'\\''") + "'";

// uses are the name of what was picked, and what it is good for.
function uses(name) {
  const q = quote(name), on = site.self ? "" : `, on ${site.name}`, list = [
    ["Export to connect to, read-only" + on, name],
    ["As a disk", `cawrm attach ${q} /dev/nbd1`],
    ["A writable clone of it", `cawrm clone ${q} ${quote(volume.name + "-then")}`],
  ];
  if (volume.role === "primary") list.push(["Make the volume what it was; what it holds is kept as a snapshot", `cawrm snapshot rollback ${q}`]);
  $("uses").replaceChildren(...list.flatMap(([what, text]) => {
    const dd = el("dd"), b = el("button", "", "copy");
    b.type = "button"; b.setAttribute("aria-label", "copy: " + what); b.onclick = () => copy(text, b);
    dd.append(el("code", "", text), b);
    return [el("dt", "", what), dd];
  }));
}

// copy works on a page without TLS too, where browsers have no clipboard for it but the old way.
async function copy(text, b) {
  try { await navigator.clipboard.writeText(text); } catch {
    getSelection().selectAllChildren(b.previousSibling);
    if (!document.execCommand("copy")) { b.textContent = "select it"; return; }
  }
  b.textContent = "copied";
  setTimeout(() => { b.textContent = "copy"; }, 1500);
}

// A small step where there is no history goes to the next snapshot, or into the history.
$("slide").onkeydown = (e) => {
  const by = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1 }[e.key], t = at + by * $("slide").step;
  if (!by || past.begin && t >= past.begin && at >= past.begin) return;
  e.preventDefault();
  const stops = [...past.snapshots.map((p) => p.at), past.begin ?? past.now].filter((s) => by > 0 ? s > at : s < at);
  if (stops.length) pick(by > 0 ? Math.min(...stops) : Math.max(...stops));
};
addEventListener("resize", () => { if ($("past").open) { show(from, to); pick(at, $("kept").value); } });
$("slide").oninput = () => pick(Number($("slide").value));
$("when").onchange = () => { const t = Date.parse($("when").value); if (!Number.isNaN(t)) pick(t); };
$("kept").onchange = () => { const p = past.snapshots.find((s) => s.name === $("kept").value); if (p) pick(p.at, p.name); };
