import { describe, expect, it } from 'vitest';

import { parseExact } from '../src/exact';
import { age, bytes, duration, localTime } from '../src/format';
import { hex, textOf } from '../src/inspector';
import { messageOf } from '../src/logs';
import { placeIn } from '../src/parts';
import { callOf, curl, curlLookUp, javascript, literal, python, quoted } from '../src/snippets';
import { differenceOf } from '../src/versions';
import { ENVIRONMENT, Server } from './server';

const payload = (text: string, contentType = 'application/json') => ({ contentType, bytes: new TextEncoder().encode(text) });

describe('words and numbers', () => {
  it('tell ages and durations as people do', () => {
    expect([0, 45, 187, 18120, 273600].map(seconds => age(0, seconds * 1000))).toEqual(['0s', '45s', '3m7s', '5h2m', '3d4h']);
    expect([null, 0.4, 12, 1234, 61000].map(duration)).toEqual(['–', '0.4 ms', '12 ms', '1.23 s', '1m1s']);
    expect([999, 1500, 2_500_000].map(bytes)).toEqual(['999 B', '1.5 kB', '2.5 MB']);
  });

  it('show times local, with their offset', () => {
    expect(localTime(0)).toMatch(/^19(69|70)-\d\d-\d\d \d\d:\d\d:\d\d\.000 [+-]\d\d:\d\d$/);
  });

  it('find a place in a sentence', () => {
    expect(placeIn("KeyError: 'x' (cell 3, line 7)")).toEqual({ cell: 'cell 3', line: 7 });
    expect(placeIn('cell 12 was edited')).toEqual({ cell: 'cell 12', line: 1 });
    expect(placeIn('nowhere')).toBeNull();
  });

  it('leave terminal colours and control characters out of log lines', () => {
    expect(messageOf({ message: '\u001b[31mred\u001b[0m\u0007 \u009b1m' })).toBe('red ');
    expect(messageOf({ other: 1 } as any)).toBe('{"other":1}');
  });

  it('show bytes as hex, and text only where it is text', () => {
    expect(hex(new Uint8Array([0, 65, 255]))).toBe(`00000000  00 41 ff${' '.repeat(39)}  .A.`);
    expect(textOf(new Uint8Array([0xff, 0xfe]))).toBeNull();
    expect(textOf(new Uint8Array([0, 1, 2]))).toBeNull();
    expect(textOf(new TextEncoder().encode('grün\n'))).toBe('grün\n');
  });

  it('compare two modules', () => {
    expect(differenceOf('a\n', 'a\n', 1, 2)).toEqual([]);
    expect(differenceOf('a\nb\n', 'a\nc\n', 1, 2)).toContain('+c');
  });
});

describe('snippets', () => {
  it('quote for a shell whatever a payload holds', () => {
    expect(quoted("it's $HOME `x`")).toBe("'it'\\''s $HOME `x`'");
    const line = curl({ url: 'http://x/iris', headers: {}, through: false }, payload("{'a'}", 'text/plain'));
    expect(line).toBe("curl 'http://x/iris' -H 'Content-Type: text/plain' --data-raw '{'\\''a'\\''}'");
  });

  it('say the same in Python and JavaScript, with a payload that the author kept', () => {
    const call = { url: 'http://x/iris', headers: {}, through: false };
    expect(literal({ a: [null, true, false, 1.5, "it's"] })).toBe('{"a": [None, True, False, 1.5, "it\'s"]}');
    expect(python(call, payload('{"a": null}'))).toContain('requests.post(url, json={"a": None}, headers=headers)');
    expect(python(call, { contentType: 'image/png', bytes: new Uint8Array([65, 0, 34]) })).toContain('data=b"A\\x00\\x22"');
    expect(javascript(call, payload('{"a": null}'))).toContain('JSON.stringify({"a":null})');
  });

  it('keep every digit of a long number', () => {
    const call = { url: 'http://x/iris', headers: {}, through: false };
    const long = payload('{"id": 1234567890123456789}');
    expect(literal(parseExact('{"id": 1, "id": 1234567890123456789, "x": 0.5}'))).toBe('{"id": 1234567890123456789, "x": 0.5}');
    expect(python(call, long)).toContain('json={"id": 1234567890123456789}');
    expect(javascript(call, long)).toContain('body: "{\\"id\\":1234567890123456789}"');
  });

  it('pipe bytes that are no text', () => {
    expect(curl({ url: 'u', headers: {}, through: false }, { contentType: 'image/png', bytes: new Uint8Array([255, 0]) })).toBe(
      "printf '%s' '/wA=' | base64 -d | curl 'u' -H 'Content-Type: image/png' --data-binary @-"
    );
  });

  it('pipe a text that is too long for an argument of a shell', () => {
    const long = curl({ url: 'u', headers: {}, through: false }, payload('x'.repeat(131_072), 'text/plain'));
    expect(long).toMatch(/^printf '%s' 'eHh4.*' \| base64 -d \| curl 'u' -H 'Content-Type: text\/plain' --data-binary @-$/);
  });

  it('carry the call token where the gateway wants one, each in its language', async () => {
    const guarded = callOf(await new Server().live([], { ...ENVIRONMENT, guarded: true }), '/iris', 'localhost');
    expect(guarded).toMatchObject({ url: 'http://127.0.0.1:8780/iris', through: false });
    expect(curl(guarded)).toContain('-H "Authorization: Bearer $JUPYTER_CORTEX_CALL_TOKEN"');
    expect(curlLookUp(guarded, 'w-1')).toBe('curl \'http://127.0.0.1:8780/iris/w-1\' -H "Authorization: Bearer $JUPYTER_CORTEX_CALL_TOKEN"');
    expect(python(guarded)).toMatch(/^import os\nimport requests\n/);
    expect(python(guarded)).toContain('"Authorization": f"Bearer {os.environ[\'JUPYTER_CORTEX_CALL_TOKEN\']}"');
    expect(javascript(guarded)).toContain('Authorization: `Bearer ${process.env.JUPYTER_CORTEX_CALL_TOKEN}`');
    const through = callOf(await new Server().live([], { ...ENVIRONMENT, guarded: true }), '/iris', 'hub.example');
    expect(curl(through)).toContain('-H "Authorization: token $JUPYTER_TOKEN"');
    expect(python(through)).toContain('"Authorization": f"token {os.environ[\'JUPYTER_TOKEN\']}"');
    expect(javascript(through)).toContain('Authorization: `token ${process.env.JUPYTER_TOKEN}`');
    const open = callOf(await new Server().live([]), '/iris', 'localhost');
    expect([curl(open), curlLookUp(open, 'w-1'), python(open), javascript(open)].join()).not.toContain('Authorization');
  });

  it('lead to the gateway on its own machine and through Jupyter elsewhere', async () => {
    const model = await new Server().live([]);
    expect(callOf(model, '/iris', 'localhost').url).toBe('http://127.0.0.1:8780/iris');
    expect(callOf(model, '/iris', 'hub.example')).toMatchObject({ url: 'http://localhost:8888/user/ada/cortex/run/iris', through: true });
    const team = await new Server().live([], { ...ENVIRONMENT, local: false, url: 'https://team.example' });
    expect(callOf(team, '/iris', 'hub.example').url).toBe('https://team.example/iris');
  });
});
