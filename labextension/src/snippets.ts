/**
 * How an API is called: from a shell, Python, JavaScript; always with what works from where the reader is.
 */
import type { IPayload } from './client';
import type { CortexModel } from './model';

/** Where to post to, and the headers that it takes. `through`: by way of the Jupyter server, with its token. */
export interface ICall {
  url: string;
  headers: Record<string, string>;
  through: boolean;
}

const LOOPBACK = ['localhost', '127.0.0.1', '[::1]', '::1'];

/** On the reader's own machine, or with an environment of its own, the gateway itself; else this Jupyter server, which passes it on. */
export function callOf(model: CortexModel, endpoint: string, host: string = window.location.hostname): ICall {
  const environment = model.environment;
  if (environment && (!environment.local || (LOOPBACK.includes(host) && !environment.hub))) {
    return { url: environment.url + endpoint, headers: {}, through: false };
  }
  return { url: model.client.runUrl(endpoint), headers: { Authorization: 'token $JUPYTER_TOKEN' }, through: true };
}

const SAMPLE: IPayload = { contentType: 'application/json', bytes: new TextEncoder().encode('{"key": "value"}') };

/** A request as a curl line. Text goes as it is, other bytes through a pipe. */
export function curl(call: ICall, payload: IPayload = SAMPLE): string {
  const headers = { ...call.headers, 'Content-Type': payload.contentType || 'application/octet-stream' };
  // Double quotes where the shell fills in the token, single ones where a payload must stay what it is.
  const flags = Object.entries(headers).map(([name, value]) => `-H ${value.includes('$') ? `"${name}: ${value}"` : quoted(`${name}: ${value}`)}`);
  const text = plain(payload.bytes);
  const line = `curl ${quoted(call.url)} ${flags.join(' ')}`;
  return text !== null ? `${line} --data-raw ${quoted(text)}` : `printf '%s' '${base64(payload.bytes)}' | base64 -d | ${line} --data-binary @-`;
}

export function python(call: ICall): string {
  const token = call.through ? 'import os\n' : '';
  const headers = call.through ? '{"Authorization": f"token {os.environ[\'JUPYTER_TOKEN\']}"}' : '{}';
  return `${token}import requests

headers = ${headers}
answer = requests.post("${call.url}", json={"key": "value"}, headers=headers)
request_id = answer.json()["id"]
# waits up to 30 s for the end
print(requests.get(f"${call.url}/{request_id}", params={"wait": 30}, headers=headers).json())`;
}

export function javascript(call: ICall): string {
  const token = call.through ? ', Authorization: `token ${process.env.JUPYTER_TOKEN}`' : '';
  return `const url = "${call.url}";
const headers = { "Content-Type": "application/json"${token} };
const answer = await fetch(url, { method: "POST", headers, body: JSON.stringify({ key: "value" }) });
const { id } = await answer.json();
// waits up to 30 s for the end
console.log(await (await fetch(\`\${url}/\${id}?wait=30\`, { headers })).json());`;
}

/** A text as one word of a POSIX shell. */
export function quoted(text: string): string {
  return `'${text.replace(/'/g, `'\\''`)}'`;
}

function plain(raw: Uint8Array): string | null {
  try {
    const text = new TextDecoder('utf-8', { fatal: true }).decode(raw);
    return text.includes('\u0000') ? null : text;
  } catch {
    return null;
  }
}

function base64(raw: Uint8Array): string {
  let text = '';
  for (let at = 0; at < raw.length; at += 0x8000) {
    text += String.fromCharCode(...raw.subarray(at, at + 0x8000));
  }
  return btoa(text);
}
