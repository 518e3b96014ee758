"use strict";
// The state as it comes, by server-sent events.

let last = null;     // the last state
const rates = [];    // commits a second, for the picture
let before = null;   // what rates are made of

function rows(body, list, key, make) {
  const old = new Map();
  for (const tr of body.children) old.set(tr.dataset.key, tr);
  const focus = document.activeElement && document.activeElement.dataset ? document.activeElement.dataset.focus : undefined;
  const fresh = list.map((x) => {
    const tr = make(x);
    tr.dataset.key = key(x);
    const was = old.get(tr.dataset.key);
    return was && was.isEqualNode(tr) ? was : tr;
  });
  body.replaceChildren(...fresh);
  if (focus) {
    const again = body.querySelector(`[data-focus="${CSS.escape(focus)}"]`);
    if (again && document.activeElement !== again) again.focus();
  }
}

function td(text, cls) { return el("td", cls ? { class: cls } : {}, text); }

function showHealth(s) {
  const h = s.health, p = $("health");
  p.className = h.state;
  const text = h.state === "ok" ? "All is well since " + new Date(h.since).toLocaleString() + "." :
    (h.state === "failed" ? "It has failed: " : "Not all is well: ") + h.why + ".";
  if (p.textContent !== text) p.textContent = text;
  document.title = (h.state === "ok" ? "" : h.state + ": ") + "wcfs";
}

function showNow(s) {
  $("head-at").textContent = s.head.at;
  $("head-age").textContent = "committed " + span(s.health.head.age_s) + " ago" + (s.health.head.behind ? `, ${s.health.head.behind} commits behind` : "");
  if (before && s.time !== before.time) {
    const dt = (Date.parse(s.time) - Date.parse(before.time)) / 1000;
    if (dt > 0) {
      rates.push((s.head.commits - before.head.commits) / dt);
      if (rates.length > 240) rates.shift();
    }
  }
  line($("head-spark"), rates.length > 1 ? rates : [0, 0], color("change"));
  const lag = s.head.lag;
  $("commits").textContent = count(s.head.commits);
  $("lag").textContent = lag.count ? `announced after ${span(lag.sum_s / lag.count)} on average` : "since the server started";
  $("owed").textContent = count(s.health.pins.owed);
  $("owed-who").textContent = s.health.pins.owed ? `${s.health.pins.who} for ${span(s.health.pins.oldest_s)}` : `${count(s.stats.Pin)} sent, ${s.stats.PinKill} clients killed`;
  let total = 0;
  const fronts = [];
  for (const [name, f] of Object.entries(s.fronts)) {
    const n = f.head.bytes + f.rev.bytes + f.base.bytes;
    total += n;
    fronts.push(`${name} ${bytes(n)}`);
  }
  $("read").textContent = bytes(total);
  $("read-fronts").textContent = fronts.sort().join(", ");
  const st = s.health.storage;
  $("storage").textContent = !st.connected ? "away" : st.error ? "fails" : "answers";
  const block = s.storage.loads.block, node = s.storage.loads.node;
  const mean = (d) => d.count ? span(d.sum_s / d.count) : "-";
  $("loads").textContent = `block ${block.count ? mean(block) : s.storage.blocks_in_place ? "in place" : "-"}, node ${mean(node)}; cache ${hits(s.storage.block_cache)} of blocks, ${hits(s.storage.node_cache)} of nodes`;
  $("version").textContent = s.version;
  $("zurl").textContent = s.url;
}

function hits(c) { return c.hits + c.misses ? Math.round(100 * c.hits / (c.hits + c.misses)) + " %" : "-"; }

function clientRow(s, c) {
  const tr = el("tr", c.owed ? { class: "hot" } : {});
  const user = c.uid === undefined ? "" : s.users[c.uid] || String(c.uid);
  tr.append(td(c.name + (c.command ? " " + c.command : "")), td(user || c.front));
  tr.append(td(c.waiting ? count(c.waiting) : "", "num"), td(c.owed ? count(c.owed) : "", "num"), td(c.owed ? span(c.owed_s) : "", "num"), td(count(c.pinned), "num"));
  const cell = td("", "mono");
  for (const d of c.due) cell.append(el("div", { class: "pin" }, `pin ${d.oid} #${d.blk} @${d.rev}`));
  for (const w of c.watch_list.slice(0, 4)) cell.append(el("div", {}, `${w.oid} @${w.at}`));
  if (c.watches > 4) cell.append(el("div", {}, `and ${c.watches - 4} more`));
  tr.append(cell);
  return tr;
}

function fileRow(f) {
  const tr = el("tr", f.failed ? { class: "bad", title: f.failed } : {});
  const b = el("button", { class: "link", "data-focus": "map-" + f.oid, "aria-label": "Map of " + f.oid }, f.oid);
  b.dataset.oid = f.oid;
  tr.append(el("td", {}, b), td(bytes(f.size), "num"), td((f.growth > 0 ? "+" : "") + bytes(f.growth), "num"), td(ago(f.changed)),
    td(count(f.commits), "num"), td(bytes(f.bytes), "num"), td(count(f.watches), "num"));
  return tr;
}

function show(s) {
  last = s;
  showHealth(s);
  showNow(s);
  $("n-clients").textContent = s.clients.length ? count(s.clients.length) : "";
  $("no-clients").hidden = s.clients.length > 0;
  rows($("clients"), s.clients.slice(0, 200), (c) => c.name, (c) => clientRow(s, c));
  $("n-files").textContent = s.files.length ? `${count(s.files.length)} looked up` : "none looked up yet";
  rows($("files"), s.files.slice(0, 200), (f) => f.oid, fileRow);
  if (!before || before.head.at !== s.head.at) map.headMoved();
  before = s;
}

function listen() {
  const events = new EventSource("/api/events");
  events.onmessage = (e) => show(JSON.parse(e.data));
  events.onerror = () => {
    $("health").className = "gone";
    $("health").textContent = "The server does not answer; trying again.";
  };
}

$("files").addEventListener("click", (e) => { const b = e.target.closest("button"); if (b) location.hash = "file=" + b.dataset.oid; });
$("open").addEventListener("submit", (e) => { e.preventDefault(); if ($("oid").value.length === 16) location.hash = "file=" + $("oid").value; });
window.addEventListener("hashchange", () => map.fromHash());
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { map.draw(); if (last) show(last); });
listen();
map.fromHash();
