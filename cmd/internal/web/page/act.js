// What the page can change: each action is asked for once more, and goes with the token.
import { $, ask, event, span } from "./dom.js";

export const secret = () => sessionStorage.getItem("token") || "";

// allow takes the token, or forgets it; look draws the page with or without its buttons.
export async function allow(look) {
  if (secret()) { sessionStorage.removeItem("token"); event("actions are off"); look(); return; }
  $("secret").value = "";
  if (await ask($("ask")) && $("secret").value) { sessionStorage.setItem("token", $("secret").value); look(); }
}

// post asks the daemon; what it says is an event.
async function post(what, path, body) {
  try {
    const r = await fetch("api/" + path, { method: "POST", headers: { Authorization: "Bearer " + secret(), "Content-Type": "application/json" }, body: JSON.stringify(body) });
    const a = await r.json();
    if (r.ok) { event("done: " + what); return; }
    event(`${what}: ${a.error}`, true);
    if (r.status === 401) sessionStorage.removeItem("token");
  } catch (e) { event(`${what}: ${e}`, true); }
}

// sure asks the question; with a text, that has to be typed, so that the hand cannot be faster than the eye.
async function sure(question, facts, typed) {
  $("question").textContent = question;
  $("facts").replaceChildren(...facts.map((f) => { const li = document.createElement("li"); li.textContent = f; return li; }));
  $("typing").hidden = !typed;
  $("typed").value = ""; $("type").textContent = typed || "";
  $("doit").disabled = !!typed;
  $("typed").oninput = () => { $("doit").disabled = !!typed && $("typed").value !== typed; };
  const asked = ask($("sure"));
  if (typed) $("typed").focus();
  return asked;
}

export async function changeMirror(v, m, op, look) {
  const what = `${op} mirror ${m.id} of ${v.name}`;
  if (await sure(what + "?", [])) { await post(what, "mirror", { volume: v.name, id: m.id, op }); look(); }
}

export async function snapshot(v, look) {
  $("snapof").textContent = v.name + "@";
  $("snap").value = new Date().toISOString().slice(0, 19).replaceAll(/[-:]/g, "") + "Z";
  setTimeout(() => $("snap").select());
  if (!await ask($("keep")) || !$("snap").value) return;
  await post(`snapshot ${v.name}@${$("snap").value}`, "snapshot", { op: "create", volume: v.name, name: $("snap").value });
  look();
}

// promote repeats what will happen, with what is known of the source now.
export async function promote(v, look) {
  const src = v.source, facts = [
    `${v.name} becomes a primary at position ${v.end_ptr}, a consistent earlier state of the volume; what its source wrote after that is not in it.`,
    !src || !src.address ? "No source has been heard since this daemon was started." :
      src.connected ? `Its source ${src.address} is connected: this will be refused. \u201ccawrm switchover\u201d there hands over without loss.` :
        `Its source ${src.address} was heard last ${span(src.silent_seconds)} ago.`,
    "An epoch that has not come in whole is given up.",
    "Clients that connect from now on may write.",
    "If the old primary comes back, and nobody writes to it there, it becomes a mirror of this one; what it had not sent is kept there as a snapshot.",
  ];
  if (await sure(`Promote ${v.name}: make this mirror the primary?`, facts, v.name)) { await post(`promote ${v.name}`, "role", { op: "promote", volume: v.name }); look(); }
}
