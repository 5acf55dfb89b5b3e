// node's worker threads and its pool: shared memory, messages, crypto, files, http, children. Prints what it has counted.
const { Worker, isMainThread, parentPort, workerData } = require('worker_threads');
const assert = require('assert'), child = require('child_process'), crypto = require('crypto'), fs = require('fs');
const http = require('http'), os = require('os'), path = require('path'), util = require('util'), zlib = require('zlib');

const times = (n, f) => Promise.all([...Array(n).keys()].map(f));
const ended = w => new Promise((done, fail) => { w.on('exit', done); w.on('error', fail); });
const sum = a => a.reduce((x, y) => x + y, 0);

function worker() {
  const shared = new Int32Array(workerData.shared);
  for (let i = 0; i < 2000; i++) Atomics.add(shared, 0, 1);
  const garbage = {};
  for (let i = 0; i < 50000; i++) garbage[i % 100] = Buffer.alloc(100, i & 255).toString('hex');
  let deep = 'no';
  try { (function deeper() { deeper(); })(); } catch (e) { deep = e instanceof RangeError ? 'too deep' : e; }
  assert.equal(deep, 'too deep');
  parentPort.on('message', m => {
    if (m === 'end') parentPort.close();
    else parentPort.postMessage(m * 2);
  });
}

async function main() {
  const shared = new SharedArrayBuffer(8), cells = new Int32Array(shared);
  const answers = await times(8, i => new Promise((done, fail) => {
    const w = new Worker(__filename, { workerData: { shared, i } });
    let got = 0;
    w.on('message', m => { got += m; });
    w.on('error', fail);
    w.on('exit', () => done(got));
    for (let k = 0; k < 100; k++) w.postMessage(k);
    w.postMessage('end');
  }));
  console.log('workers', cells[0], sum(answers));

  const spins = new Worker('for (;;);', { eval: true });
  const waits = new Worker('Atomics.wait(new Int32Array(require("worker_threads").workerData), 1, 0)',
                           { eval: true, workerData: shared });
  await Promise.all([spins, waits].map(w => new Promise(r => w.on('online', r))));
  await Promise.all([spins.terminate(), waits.terminate()]);
  console.log('terminated');
  console.log('exit', await ended(new Worker('process.exit(7)', { eval: true })));

  const pbkdf2 = util.promisify(crypto.pbkdf2);
  const keys = await times(30, i => pbkdf2('p' + i, 's', 2000, 32, 'sha512'));
  console.log('keys', crypto.createHash('sha256').update(Buffer.concat(keys)).digest('hex'));
  const zip = util.promisify(zlib.gzip), unzip = util.promisify(zlib.gunzip);
  console.log('zipped', sum(await times(40, async i => (await unzip(await zip(Buffer.alloc(20000 + i)))).length)));
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'goshim-node-'));
  console.log('files', sum(await times(100, async i => {
    const file = path.join(dir, String(i));
    await fs.promises.writeFile(file, 'x'.repeat(i));
    const n = (await fs.promises.readFile(file)).length;
    await fs.promises.unlink(file);
    return n;
  })));
  fs.rmdirSync(dir);

  const server = http.createServer((q, a) => {
    let n = 0;
    q.on('data', c => { n += c.length; });
    q.on('end', () => a.end(String(n)));
  });
  await new Promise(r => server.listen(0, '127.0.0.1', r));
  const agent = new http.Agent({ keepAlive: true, maxSockets: 30 });
  console.log('http', sum(await times(400, i => new Promise((done, fail) => {
    const options = { port: server.address().port, host: '127.0.0.1', method: 'POST', agent };
    const q = http.request(options, a => {
      let body = '';
      a.on('data', c => { body += c; });
      a.on('end', () => done(Number(body)));
    });
    q.on('error', fail);
    q.end('y'.repeat(i));
  }))));
  agent.destroy();
  await new Promise(r => server.close(r));

  const exec = util.promisify(child.exec);
  console.log('children', sum(await times(20, async i => Number((await exec('echo ' + i)).stdout))));
  console.log('killed', child.spawnSync('sh', ['-c', 'kill -TERM $$']).signal);
  let signals = 0;
  process.on('SIGUSR2', () => { signals++; });
  while (signals < 5) {
    const before = signals;
    process.kill(process.pid, 'SIGUSR2');
    while (signals === before) await new Promise(r => setTimeout(r, 5));
  }
  console.log('signals', signals);
}

if (isMainThread) main().catch(e => { console.log('failed', e); process.exit(1); });
else worker();
