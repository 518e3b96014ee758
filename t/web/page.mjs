// Drives the page in Chromium. usage: node page.mjs URL DEPS STEP ...; answers each line on stdin with one line of JSON on stdout.
import { createRequire } from "node:module";
import { createInterface } from "node:readline";
import { readFileSync } from "node:fs";

const [url, deps] = process.argv.slice(2);
const require = createRequire(deps + "/node_modules/");
const { chromium } = require("playwright-core");
const axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");

const browser = await chromium.launch({ executablePath: "/usr/bin/chromium", args: ["--headless", "--no-sandbox", "--disable-gpu"] });
const context = await browser.newContext({ bypassCSP: false, viewport: { width: 1200, height: 900 } });
const page = await context.newPage();
page.setDefaultTimeout(120000);
const errors = [];
page.on("console", (m) => { if (m.type() === "error" || m.type() === "warning") errors.push(m.text()); });
page.on("pageerror", (e) => errors.push(String(e)));
page.on("request", (r) => { if (!r.url().startsWith(url) && !r.url().startsWith("data:")) errors.push("a request to " + r.url()); });
await page.goto(url);

const commands = {
  errors: async () => errors,
  reload: async () => { await page.goto("about:blank"); await page.goto(url); return null; },
  // The page's policy has no eval in it, so that what is waited for is asked again from here.
  wait: async (what) => {
    const end = Date.now() + 120000;
    while (!(await page.evaluate(what))) {
      if (Date.now() > end) throw new Error("waited too long; the page says: " + (await page.evaluate("document.body.innerText")));
      await new Promise((go) => setTimeout(go, 20));
    }
    return null;
  },
  eval: async (what) => page.evaluate(what),
  key: async (name) => { await page.keyboard.press(name); return null; },
  size: async (w, h) => { await page.setViewportSize({ width: Number(w), height: Number(h) }); return null; },
  scheme: async (s) => { await page.emulateMedia({ colorScheme: s }); return null; },
  shot: async (path) => { await page.screenshot({ path, fullPage: true }); return null; },
  // The checks run in a world of their own: the page's policy lets no script in.
  axe: async () => {
    const cdp = await context.newCDPSession(page);
    const { frameTree } = await cdp.send("Page.getFrameTree");
    const { executionContextId } = await cdp.send("Page.createIsolatedWorld", { frameId: frameTree.frame.id });
    const run = async (expression) => {
      const r = await cdp.send("Runtime.evaluate", { expression, contextId: executionContextId, awaitPromise: true, returnByValue: true });
      if (r.exceptionDetails) throw new Error(JSON.stringify(r.exceptionDetails));
      return r.result.value;
    };
    await run(axe + ";0");
    const found = await run("axe.run(document).then((r) => r.violations.map((v) => ({ id: v.id, impact: v.impact, nodes: v.nodes.map((n) => n.html + ' ' + n.failureSummary) })))");
    return found;
  },
};

for await (const text of createInterface({ input: process.stdin })) {
  const [name, ...args] = JSON.parse(text);
  try {
    console.log(JSON.stringify({ ok: (await commands[name](...args)) ?? null }));
  } catch (e) {
    console.log(JSON.stringify({ error: String(e) }));
  }
}
await browser.close();
