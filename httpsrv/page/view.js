"use strict";
// What several parts of the page need: elements, numbers for people, colours.

const $ = (id) => document.getElementById(id);

function el(tag, attrs, ...kids) {
  const e = document.createElement(tag);
  for (const [k, v] of Object.entries(attrs || {})) e.setAttribute(k, v);
  e.append(...kids);
  return e;
}

function bytes(n) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
  let i = 0;
  let v = Math.abs(n);
  while (v >= 1024 && i < units.length - 1) { v /= 1024; i++; }
  const digits = i === 0 || v >= 100 ? 0 : 1;
  return (n < 0 ? "-" : "") + v.toFixed(digits) + " " + units[i];
}

function count(n) { return n.toLocaleString("en"); }

function span(s) {
  if (s < 0.001) return (s * 1e6).toFixed(0) + " µs";
  if (s < 1) return (s * 1000).toFixed(s < 0.01 ? 1 : 0) + " ms";
  if (s < 60) return s.toFixed(1) + " s";
  if (s < 3600) return Math.floor(s / 60) + " min";
  if (s < 2 * 86400) return Math.floor(s / 3600) + " h";
  return Math.floor(s / 86400) + " days";
}

function ago(time) { return span(Math.max(0, (Date.now() - Date.parse(time)) / 1000)) + " ago"; }

function color(name) { return getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim(); }

// A canvas with as many pixels as it has on the screen.
function fit(canvas) {
  const r = window.devicePixelRatio || 1;
  const w = Math.max(1, Math.round(canvas.clientWidth * r));
  const h = Math.max(1, Math.round(canvas.clientHeight * r));
  if (canvas.width !== w || canvas.height !== h) { canvas.width = w; canvas.height = h; }
  const g = canvas.getContext("2d");
  g.setTransform(r, 0, 0, r, 0, 0);
  g.clearRect(0, 0, canvas.clientWidth, canvas.clientHeight);
  return g;
}

function line(canvas, values, stroke) {
  const g = fit(canvas), w = canvas.clientWidth, h = canvas.clientHeight;
  let lo = Infinity, hi = -Infinity;
  for (const v of values) if (Number.isFinite(v)) { lo = Math.min(lo, v); hi = Math.max(hi, v); }
  if (lo > hi) return null;
  g.strokeStyle = stroke;
  g.lineWidth = 1.5;
  g.beginPath();
  let pen = false;
  values.forEach((v, i) => {
    if (!Number.isFinite(v)) { pen = false; return; }
    const x = values.length > 1 ? i / (values.length - 1) * w : w / 2;
    const y = hi > lo ? h - 3 - (v - lo) / (hi - lo) * (h - 6) : h / 2;
    if (pen) g.lineTo(x, y); else g.moveTo(x, y);
    pen = true;
  });
  g.stroke();
  return { lo, hi };
}
