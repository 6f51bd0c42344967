// Plays recordings in rrweb-player, in a real browser, and tells what was seen.
//
//   node play.mjs FOLDER CHROMIUM [SHOTS]     in the folder that has node_modules
//
// FOLDER has one JSON array of rrweb events a file. A JSON array is printed, one entry a file: {file, total_ms, views:
// [{at_ms, nodes, tags, text}], errors, finished}. `nodes` counts, `tags` hashes the elements of the replayed document in order, frames and shadow
// trees included; `text` is what of it can be read, typed values included. SHOTS: a folder for a picture of each view.
import { createHash } from 'node:crypto';
import { createReadStream, readdirSync } from 'node:fs';
import { createServer } from 'node:http';
import { createRequire } from 'node:module';
import { join } from 'node:path';

const { chromium } = createRequire(join(process.cwd(), 'package.json'))('playwright-core');
const [folder, executablePath, shots] = process.argv.slice(2);
const SHARES = [0.05, 0.5, 0.97];
const LIMIT_MS = 20_000;
const PLAYED_SHARE = 0.9;
const SPEED = 8;
const AT_ONCE = 2; // pages: seeking is the browser's work, one core each
const DIST = 'node_modules/rrweb-player/dist';
const PAGE = `<!doctype html><meta charset="utf-8"><link rel="icon" href="data:,"><link rel="stylesheet" href="/style.css">
<div id="at"></div><script src="/player.js"></script>`;
const FILES = { '/style.css': [`${DIST}/style.css`, 'text/css'], '/player.js': [`${DIST}/rrweb-player.umd.min.cjs`, 'text/javascript'] };

const server = createServer((request, response) => {
  const path = new URL(request.url, 'http://x').pathname;
  if (path === '/') return response.setHeader('content-type', 'text/html').end(PAGE);
  const [file, type] = FILES[path] ?? [join(folder, decodeURIComponent(path.slice(1))), 'application/json'];
  response.setHeader('content-type', type);
  createReadStream(file).on('error', () => response.writeHead(404).end()).pipe(response);
});
await new Promise((done) => server.listen(0, '127.0.0.1', done));
const origin = `http://127.0.0.1:${server.address().port}`;

const browser = await chromium.launch({
  executablePath,
  args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
    '--disable-component-update', '--disable-sync'],
});

// In the page: makes the player, and returns how long the recording is.
async function load(file) {
  const events = await (await fetch(`/${file}`)).json();
  const { Player } = window.rrwebPlayer;
  window.player = new Player({ target: document.getElementById('at'), props: { events, autoPlay: false, width: 900, height: 600 } });
  window.finished = new Promise((done) => window.player.addEventListener('finish', done));
  return window.player.getMetaData().totalTime;
}

// In the page: goes there without playing, and tells the replayed document once its loads are done.
async function view(atMs) {
  window.player.goto(atMs, false);
  const frame = document.querySelector('.replayer-wrapper iframe');
  await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
  const tags = [];
  const texts = [];
  const walk = (node) => {
    if (node.nodeType === Node.TEXT_NODE) texts.push(node.data);
    if (node.nodeType === Node.ELEMENT_NODE) {
      tags.push(node.tagName);
      for (const each of node.attributes) texts.push(each.value);
      if (typeof node.value === 'string') texts.push(node.value);
      if (node.shadowRoot) walk(node.shadowRoot);
      if (node.tagName === 'IFRAME' && node.contentDocument) walk(node.contentDocument);
    }
    node.childNodes.forEach(walk);
  };
  walk(frame.contentDocument);
  return { tags, text: texts.join('\n') };
}

async function played(file) {
  const page = await browser.newPage({ viewport: { width: 1000, height: 760 } });
  page.setDefaultTimeout(LIMIT_MS);
  const errors = [];
  page.on('pageerror', (error) => errors.push(`uncaught ${error.message}`));
  page.on('console', (line) => ['error', 'warning'].includes(line.type()) && errors.push(`${line.type()} ${line.text()}`));
  await page.route((url) => url.origin !== origin, (route) => route.abort()); // what the recorded page would load is not here
  await page.goto(origin);
  const total = await page.evaluate(load, file);
  const views = [];
  for (const share of SHARES) {
    const atMs = Math.round(total * share);
    const { tags, text } = await page.evaluate(view, atMs);
    views.push({ at_ms: atMs, nodes: tags.length, tags: createHash('sha256').update(tags.join()).digest('hex'), text });
    if (shots) await page.screenshot({ path: join(shots, `${file}-${share}.png`) });
  }
  const finished = await page.evaluate(([from, speed, limit]) => {
    window.player.setSpeed(speed);
    window.player.goto(from, true);
    return Promise.race([window.finished.then(() => true), new Promise((done) => setTimeout(done, limit, false))]);
  }, [total * PLAYED_SHARE, SPEED, LIMIT_MS]);
  await page.close();
  return { file, total_ms: total, views, errors, finished };
}

const files = readdirSync(folder).sort();
const found = [];
await Promise.all(Array.from({ length: AT_ONCE }, async () => {
  for (let file; (file = files.shift());) found.push(await played(file));
}));
await browser.close();
server.close();
process.stdout.write(JSON.stringify(found));
