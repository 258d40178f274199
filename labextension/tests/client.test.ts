import { describe, expect, it } from 'vitest';

import { MISSING, Problem } from '../src/client';
import { json, ndjson, Server } from './server';

const REQUEST = { path: 'a.ipynb', kernel_id: 'k', model: { cells: [] } };

describe('the client', () => {
  it('speaks to the routes below the base URL, names in paths quoted', async () => {
    const server = new Server().on('GET *', json({ name: 'x' }));
    await server.client.workload('iris', '../other?x=1');
    expect(server.asked[0].path).toBe('api/apis/iris/workloads/..%2Fother%3Fx%3D1?logs=false');
    await server.client.workload('iris', '..');
    expect(server.asked[1].path.split('/')).not.toContain('..');
  });

  it('gives a refusal in the server’s own words', async () => {
    const server = new Server().on('GET api/apis/iris', json({ title: 'No such API', status: 404, detail: 'iris is not deployed', code: 'api_not_found' }, 404));
    const error = await server.client.api('iris').catch(one => one);
    expect(error).toBeInstanceOf(Problem);
    expect(error.code).toBe('api_not_found');
    expect(error.message).toBe('iris is not deployed');
  });

  it('says that the extension is missing where the server does not know the route', async () => {
    const server = new Server().on('GET snapshot', new Response('<h1>404</h1>', { status: 404 }));
    const error = await server.client.snapshot().catch(one => one);
    expect(error.code).toBe(MISSING);
    expect(error.message).toContain('pip install jupyter-cortex');
  });

  it('says that the server does not answer when nothing comes back', async () => {
    const server = new Server().on('GET snapshot', () => {
      throw new TypeError('Failed to fetch');
    });
    expect((await server.client.snapshot().catch(one => one)).code).toBe('server_unreachable');
  });

  it('tells each step of a deploy as it comes, then the result', async () => {
    const steps: string[] = [];
    const server = new Server().on('POST notebook/deploy', ndjson({ step: 'slicing' }, { step: 'starting iris' }, { result: { deployed: [{ api: 'iris' }], curl: 'curl', warnings: [] } }));
    const found = await server.client.deploy(REQUEST, one => steps.push(one.step));
    expect(steps).toEqual(['slicing', 'starting iris']);
    expect(found.deployed[0].api).toBe('iris');
    expect(JSON.parse(server.asked[0].body).path).toBe('a.ipynb');
  });

  it('reads lines that arrive in pieces, in the middle of a character', async () => {
    const raw = new TextEncoder().encode('{"step":"prüfen"}\n{"result":{"name":"ä"}}\n');
    const body = new ReadableStream({
      start(controller) {
        for (const byte of raw) {
          controller.enqueue(new Uint8Array([byte]));
        }
        controller.close();
      }
    });
    const server = new Server().on('POST notebook/show', () => new Response(body));
    const steps: string[] = [];
    expect((await server.client.show(REQUEST, one => steps.push(one.step))).name).toBe('ä');
    expect(steps).toEqual(['prüfen']);
  });

  it('turns a problem in the middle of a deploy into a refusal', async () => {
    const server = new Server().on('POST notebook/deploy', ndjson({ step: 'slicing' }, { problem: { code: 'gate_failed', detail: 'sample a: KeyError', title: 'x', status: 400 } }));
    expect((await server.client.deploy(REQUEST, () => undefined).catch(one => one)).code).toBe('gate_failed');
  });

  it('does not take a connection that was cut for a deploy', async () => {
    const server = new Server().on('POST notebook/deploy', ndjson({ step: 'slicing' }));
    expect((await server.client.deploy(REQUEST, () => undefined).catch(one => one)).code).toBe('cut_off');
  });

  it('says where a connection broke, whatever the browser calls it', async () => {
    const broken = new ReadableStream({ pull: stream => stream.error(new TypeError('network error')) });
    const server = new Server().on('POST notebook/deploy', () => new Response(broken));
    const problem = await server.client.deploy(REQUEST, () => undefined).catch(one => one);
    expect(problem.code).toBe('cut_off');
    expect(problem.message).toContain('look in the list of APIs');
    server.on('POST notebook/show', () => new Response(new ReadableStream({ pull: stream => stream.error(new TypeError('network error')) })));
    expect((await server.client.show(REQUEST, () => undefined).catch(one => one)).message).toContain('try again');
    server.on('POST notebook/show', ndjson({ step: 'slicing' }));
    const mistake = new Error('of the one who draws the step');
    expect(await server.client.show(REQUEST, () => { throw mistake; }).catch(one => one)).toBe(mistake);
  });

  it('sends a payload’s bytes and type as they are', async () => {
    const server = new Server().on('POST run/iris', json({ id: 'abc' }));
    expect(await server.client.submit('/iris', 'hello', 'text/plain', 'my-id')).toBe('abc');
    expect(server.asked[0].headers.get('content-type')).toBe('text/plain');
    expect(server.asked[0].headers.get('x-request-id')).toBe('my-id');
    expect(server.asked[0].body).toBe('hello');
  });

  it('gives a payload with the type that it came with', async () => {
    const answer = new Response(new Uint8Array([1, 2]), { headers: { 'content-type': 'application/octet-stream', 'x-payload-content-type': 'image%2Fpng' } });
    const server = new Server().on('GET api/apis/iris/workloads/a/payload', answer);
    const found = await server.client.payload('iris', 'a');
    expect(found.contentType).toBe('image/png');
    expect([...found.bytes]).toEqual([1, 2]);
  });
});
