"use strict";
// The map of a bigfile: blocks from left to right, revisions from new to old; and one cell of it.

const map = (() => {
  const strip = 10;      // height of the strips above the picture
  let oid = "", pic = null, want = null, busy = false, again = false;
  let cur = { blk: 0, rev: 0 };
  let cell = null;       // what is open
  let timer = 0;

  const canvas = $("canvas");
  const top = () => 2 * strip + 4;

  function decode(text) { return Uint8Array.from(atob(text || ""), (c) => c.charCodeAt(0)); }

  function fromHash() {
    const m = /^#file=([0-9a-f]{16})$/.exec(location.hash);
    $("map").hidden = !m;
    if (!m || m[1] === oid) return;
    oid = m[1];
    pic = null; cell = null; cur = { blk: 0, rev: 0 };
    want = { b0: 0, b1: 0, r0: 0, r1: 0 };
    $("map-oid").textContent = oid;
    $("oid").value = oid;
    $("cell").hidden = true;
    $("map").scrollIntoView();
    load();
  }

  function headMoved() { if (oid && !$("map").hidden) load(); }

  async function load() {
    if (busy) { again = true; return; }
    busy = true; again = false;
    clearTimeout(timer);
    const w = Math.min(1600, Math.max(50, canvas.clientWidth)), h = Math.min(1200, Math.max(20, canvas.clientHeight - top()));
    const q = new URLSearchParams({ file: oid, b0: want.b0, b1: want.b1, r0: want.r0, r1: want.r1, w: Math.round(w), h: Math.round(h) });
    try {
      const resp = await fetch("/api/map?" + q);
      if (!resp.ok) throw new Error(await resp.text());
      const p = await resp.json();
      if (p.oid === oid) {
        p.cells = decode(p.cells); p.have = decode(p.have); p.tracked = decode(p.tracked);
        pic = p;
        cur.blk = Math.min(Math.max(cur.blk, p.b0), Math.max(p.b0, p.b1 - 1));
        cur.rev = Math.min(Math.max(cur.rev, p.r0), Math.max(p.r0, p.r1 - 1));
        tell(); draw(); showCursor();
        if (!p.done) timer = setTimeout(load, 400);
        else if (last && p.at !== last.head.at) timer = setTimeout(load, 1000);
      }
    } catch (e) { $("map-text").textContent = String(e.message || e); }
    busy = false;
    if (again) load();
  }

  function tell() {
    const p = pic;
    let text = `${count(p.blocks)} blocks of ${bytes(p.blksize)}, ${count(p.revs)} revisions as of ${p.at}`;
    if (!p.done) text += p.looked < 1 ? `; looking at blocks, ${Math.round(p.looked * 100)} %` : "; looking further back";
    if (p.end) text += `; ${p.end}`;
    text += `. Shown: blocks ${count(p.b0)} to ${count(Math.max(p.b0, p.b1 - 1))}, revisions ${count(p.r0)} to ${count(Math.max(p.r0, p.r1 - 1))} back from head.`;
    if ($("map-text").textContent !== text) $("map-text").textContent = text;
    canvas.dataset.done = p.done;
  }

  function draw() {
    if (!pic) return;
    const g = fit(canvas), p = pic, w = canvas.clientWidth, h = canvas.clientHeight - top();
    g.fillStyle = color("empty");
    g.fillRect(0, top(), w, h);
    if (!p.w) return;
    const cw = w / p.w;
    const bar = (bytes, y, name) => {
      g.fillStyle = color(name);
      for (let x = 0; x < p.w; x++) if (bytes[x]) { g.globalAlpha = 0.35 + 0.65 * bytes[x] / 255; g.fillRect(x * cw, y, Math.max(cw, 1), strip); }
      g.globalAlpha = 1;
    };
    bar(p.have, 0, "have");
    bar(p.tracked, strip + 2, "track");
    if (!p.h) return;
    const ch = h / p.h;
    g.fillStyle = color("change");
    for (let y = 0; y < p.h; y++) for (let x = 0; x < p.w; x++) {
      const v = p.cells[y * p.w + x];
      if (v) { g.globalAlpha = 0.3 + 0.7 * Math.sqrt(v / 255); g.fillRect(x * cw, top() + y * ch, Math.max(cw - (cw > 6 ? 1 : 0), 1), Math.max(ch - (ch > 6 ? 1 : 0), 1)); }
    }
    g.globalAlpha = 1;
    g.strokeStyle = color("watch"); g.fillStyle = color("watch"); g.lineWidth = 2; g.font = "12px sans-serif";
    const seen = new Map();
    for (const s of p.watches) seen.set(s.rev, (seen.get(s.rev) || []).concat(s.client));
    for (const [rev, who] of seen) {
      if (rev < p.r0 || rev > p.r1) continue;
      const y = top() + (rev - p.r0) / (p.r1 - p.r0) * h;
      g.beginPath(); g.moveTo(0, y + 1); g.lineTo(w, y + 1); g.stroke();
      const text = who.slice(0, 3).join(", ") + (who.length > 3 ? ` and ${who.length - 3} more` : "");
      const tw = g.measureText(text).width, ty = y + 14 < canvas.clientHeight ? y + 14 : y - 4;
      g.save(); g.fillStyle = color("card"); g.globalAlpha = 0.85; g.fillRect(3, ty - 11, tw + 4, 14); g.restore();
      g.fillText(text, 5, ty);
    }
    const [x, y, bw, bh] = boxOf(cur.blk, cur.rev);
    g.strokeStyle = color("fg"); g.lineWidth = 2;
    g.strokeRect(x - 1, y - 1, Math.max(bw, 5) + 2, Math.max(bh, 5) + 2);
  }

  function boxOf(blk, rev) {
    const p = pic, w = canvas.clientWidth, h = canvas.clientHeight - top();
    const bw = w / (p.b1 - p.b0), bh = h / Math.max(1, p.r1 - p.r0);
    return [(blk - p.b0) * bw, top() + (rev - p.r0) * bh, bw, bh];
  }

  function showCursor() {
    if (!pic || !pic.w || !pic.h) { $("cursor").textContent = ""; return; }
    const y = Math.min(pic.h - 1, Math.floor((cur.rev - pic.r0) * pic.h / (pic.r1 - pic.r0)));
    const x = Math.min(pic.w - 1, Math.floor((cur.blk - pic.b0) * pic.w / (pic.b1 - pic.b0)));
    const row = pic.rows[y];
    const text = `block ${count(cur.blk)}, revision ${count(cur.rev)} back` + (row ? `, @${row.tid}` : "") + (pic.cells[y * pic.w + x] ? ": changed here" : ": not changed here");
    if ($("cursor").textContent !== text) $("cursor").textContent = text;
  }

  function zoom(f) {
    if (!pic) return;
    const one = (lo, hi, at, all) => {
      const n = Math.min(all, Math.max(1, Math.round((hi - lo) * f)));
      const a = Math.max(0, Math.min(all - n, Math.round(at - n / 2)));
      return [a, a + n];
    };
    [want.b0, want.b1] = one(pic.b0, pic.b1, cur.blk + 0.5, pic.blocks);
    [want.r0, want.r1] = one(pic.r0, pic.r1, cur.rev + 0.5, pic.revs);
    load();
  }

  function pan(db, dr) {
    if (!pic) return;
    const one = (lo, hi, d, all) => {
      const n = hi - lo, a = Math.max(0, Math.min(all - n, lo + Math.round(d * n)));
      return [a, a + n];
    };
    [want.b0, want.b1] = one(pic.b0, pic.b1, db, pic.blocks);
    [want.r0, want.r1] = one(pic.r0, pic.r1, dr, pic.revs);
    load();
  }

  function move(db, dr) {
    if (!pic) return;
    const stepB = Math.max(1, Math.round((pic.b1 - pic.b0) / Math.max(1, pic.w))), stepR = Math.max(1, Math.round((pic.r1 - pic.r0) / Math.max(1, pic.h)));
    cur.blk = Math.max(0, Math.min(pic.blocks - 1, cur.blk + db * stepB));
    cur.rev = Math.max(0, Math.min(pic.revs - 1, cur.rev + dr * stepR));
    if (cur.blk < pic.b0) pan(-0.5, 0); else if (cur.blk >= pic.b1) pan(0.5, 0);
    else if (cur.rev < pic.r0) pan(0, -0.5); else if (cur.rev >= pic.r1) pan(0, 0.5);
    draw(); showCursor();
  }

  const actions = {
    all: () => { want = { b0: 0, b1: 0, r0: 0, r1: 0 }; load(); },
    in: () => zoom(0.5), out: () => zoom(2), left: () => pan(-0.5, 0), right: () => pan(0.5, 0), up: () => pan(0, -0.5), down: () => pan(0, 0.5),
  };

  function at(e) {
    const r = canvas.getBoundingClientRect(), p = pic;
    const x = (e.clientX - r.left) / r.width, y = (e.clientY - r.top - top()) / (r.height - top());
    cur.blk = Math.max(p.b0, Math.min(p.b1 - 1, Math.floor(p.b0 + x * (p.b1 - p.b0))));
    cur.rev = Math.max(p.r0, Math.min(p.r1 - 1, Math.floor(p.r0 + y * (p.r1 - p.r0))));
  }

  canvas.addEventListener("click", (e) => { if (pic && pic.w && pic.h) { at(e); draw(); showCursor(); openCell(); } });
  canvas.addEventListener("wheel", (e) => { if (pic && pic.w && pic.h && e.ctrlKey) { e.preventDefault(); at(e); zoom(e.deltaY < 0 ? 0.5 : 2); } }, { passive: false });
  canvas.addEventListener("keydown", (e) => {
    const keys = { ArrowLeft: () => move(-1, 0), ArrowRight: () => move(1, 0), ArrowUp: () => move(0, -1), ArrowDown: () => move(0, 1),
      "+": actions.in, "=": actions.in, "-": actions.out, "0": actions.all, PageUp: actions.up, PageDown: actions.down, Home: actions.left, End: actions.right, Enter: openCell };
    if (keys[e.key] && !e.ctrlKey && !e.altKey && !e.metaKey) { e.preventDefault(); keys[e.key](); }
  });
  document.querySelector("[role=toolbar]").addEventListener("click", (e) => { const b = e.target.closest("button"); if (b) actions[b.dataset.do](); });
  new ResizeObserver(() => { if (oid) load(); }).observe($("frame"));

  async function get(url) {
    const resp = await fetch(url);
    if (!resp.ok) throw new Error(await resp.text());
    return resp;
  }

  // openCell shows a block as of the revision under the cursor.
  async function openCell() {
    if (!pic || !pic.revs) return;
    const blk = cur.blk, rev = cur.rev;
    try {
      const info = (await (await get(`/api/revs?file=${oid}&from=${rev}&n=1`)).json())[0];
      cell = { oid, blk, rev, tid: info.tid, info };
      $("cell").hidden = false;
      $("cell-title").textContent = `Block ${count(blk)} @${info.tid}`;
      let tx = `Transaction of ${new Date(info.time).toLocaleString()}: changed ${count(info.changed)} ${info.changed === 1 ? "block" : "blocks"} of this file, which had ${bytes(info.size)}.`;
      if (info.user || info.description) tx += ` ${info.user || "somebody"}: ${info.description || ""}`;
      $("cell-tx").textContent = tx;
      await showData();
    } catch (e) { $("cell").hidden = false; $("cell-tx").textContent = String(e.message || e); }
  }

  async function showData() {
    const off = Math.max(0, Number($("off").value) || 0);
    const data = new Uint8Array(await (await get(`/api/block?file=${cell.oid}&at=${cell.tid}&blk=${cell.blk}&off=${off}&n=16384`)).arrayBuffer());
    hex(data.subarray(0, 2048), off);
    numbers(data);
  }

  function hex(data, off) {
    const out = [];
    for (let i = 0; i < data.length; i += 16) {
      const part = data.subarray(i, i + 16);
      const hex = Array.from(part, (b) => b.toString(16).padStart(2, "0")).join(" ");
      const text = Array.from(part, (b) => b > 31 && b < 127 ? String.fromCharCode(b) : ".").join("");
      out.push((off + i).toString(16).padStart(6, "0") + "  " + hex.padEnd(47) + "  " + text);
    }
    $("hex").textContent = out.join("\n") || "nothing is there";
  }

  const dtypes = { float64: [8, "getFloat64"], float32: [4, "getFloat32"], int64: [8, "getBigInt64"], uint64: [8, "getBigUint64"], int32: [4, "getInt32"], uint32: [4, "getUint32"],
    int16: [2, "getInt16"], uint16: [2, "getUint16"], int8: [1, "getInt8"], uint8: [1, "getUint8"] };

  function numbers(data) {
    const [size, read] = dtypes[$("dtype").value], view = new DataView(data.buffer, data.byteOffset, data.byteLength), exact = [];
    for (let i = 0; i + size <= data.length; i += size) exact.push(view[read](i, true));
    $("nums").textContent = exact.slice(0, 400).map((v, i) => String(i).padStart(5) + "  " + v).join("\n");
    const range = line($("spark"), exact.map(Number), color("change"));
    $("spark-text").textContent = range ? `${count(exact.length)} numbers, ${range.lo} to ${range.hi}` : "no finite number is there";
  }

  // step goes to the next change of the block that is open.
  async function step(back) {
    if (!cell) return;
    const q = new URLSearchParams({ file: oid, blk: cell.blk, rev: cell.rev, later: back ? "" : "1" });
    try {
      const to = await (await get("/api/change?" + q)).json();
      if (to.rev < 0) { $("cell-tx").textContent = back ? "No earlier change of this block is known." : "No later change of this block."; return; }
      cur = { blk: cell.blk, rev: to.rev };
      if (to.rev < pic.r0 || to.rev >= pic.r1) { const n = pic.r1 - pic.r0; want.r0 = Math.max(0, to.rev - (n >> 1)); want.r1 = want.r0 + n; load(); }
      draw(); showCursor(); openCell();
    } catch (e) { $("cell-tx").textContent = String(e.message || e); }
  }

  $("older").addEventListener("click", () => step(true));
  $("newer").addEventListener("click", () => step(false));
  $("dtype").addEventListener("change", () => { if (cell) showData(); });
  $("off").addEventListener("change", () => { if (cell) showData(); });

  return { fromHash, headMoved, draw: () => { draw(); if (cell) showData(); } };
})();
