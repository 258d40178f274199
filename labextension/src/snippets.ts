/**
 * How an API is called: from a shell, Python, JavaScript; always with what works from where the reader is.
 */
import type { IPayload } from './client';
import { hasBig, parseExact, written } from './exact';
import type { CortexModel } from './model';

/**
 * Where to post to, and the headers that it takes; a token is named as a shell's variable. `through`: by way of the Jupyter server, with its token.
 */
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
    const headers: Record<string, string> = environment.guarded ? { Authorization: 'Bearer $JUPYTER_CORTEX_CALL_TOKEN' } : {};
    return { url: environment.url + endpoint, headers, through: false };
  }
  return { url: model.client.runUrl(endpoint), headers: { Authorization: 'token $JUPYTER_TOKEN' }, through: true };
}

/** Linux takes no argument of 128 kB or more. */
const ARGUMENT = 120_000;

/** How it authorizes: by which scheme, and which variable has the token. */
function tokenOf(call: ICall): { scheme: string; variable: string } | null {
  const found = /^(\w+) \$(\w+)$/.exec(call.headers.Authorization ?? '');
  return found && { scheme: found[1], variable: found[2] };
}

const SAMPLE: IPayload = { contentType: 'application/json', bytes: new TextEncoder().encode('{"key": "value"}') };

/** A request as a curl line. Text goes as it is, other bytes and what is too long for an argument through a pipe. */
export function curl(call: ICall, payload: IPayload = SAMPLE): string {
  const headers = { ...call.headers, 'Content-Type': payload.contentType || 'application/octet-stream' };
  // Double quotes where the shell fills in the token, single ones where a payload must stay what it is.
  const flags = Object.entries(headers).map(([name, value]) => `-H ${value.includes('$') ? `"${name}: ${value}"` : quoted(`${name}: ${value}`)}`);
  const text = payload.bytes.length < ARGUMENT ? plain(payload.bytes) : null;
  const line = `curl ${quoted(call.url)} ${flags.join(' ')}`;
  return text !== null ? `${line} --data-raw ${quoted(text)}` : `printf '%s' '${base64(payload.bytes)}' | base64 -d | ${line} --data-binary @-`;
}

export function python(call: ICall, payload: IPayload = SAMPLE): string {
  const value = jsonOf(payload);
  const token = tokenOf(call);
  const headers = [
    ...(token ? [`"Authorization": f"${token.scheme} {os.environ['${token.variable}']}"`] : []),
    ...(value === undefined ? [`"Content-Type": ${JSON.stringify(payload.contentType)}`] : [])
  ];
  const body = value === undefined ? `data=${bytesLiteral(payload.bytes)}` : `json=${literal(value)}`;
  return `${token ? 'import os\n' : ''}import requests

url = "${call.url}"
headers = {${headers.join(', ')}}
request_id = requests.post(url, ${body}, headers=headers).json()["id"]
# waits up to 30 s for the end
print(requests.get(f"{url}/{request_id}", params={"wait": 30}, headers=headers).json())`;
}

export function javascript(call: ICall, payload: IPayload = SAMPLE): string {
  const value = jsonOf(payload);
  const found = tokenOf(call);
  const token = found ? `, Authorization: \`${found.scheme} \${process.env.${found.variable}}\`` : '';
  // JavaScript has no number for what is beyond 2^53: there the text itself is sent.
  const json = hasBig(value) ? JSON.stringify(written(value)) : `JSON.stringify(${JSON.stringify(value)})`;
  const body = value === undefined ? `new Uint8Array([${[...payload.bytes].join(', ')}])` : json;
  return `const url = "${call.url}";
const headers = { "Content-Type": ${JSON.stringify(payload.contentType)}${token} };
const answer = await fetch(url, { method: "POST", headers, body: ${body} });
const { id } = await answer.json();
// waits up to 30 s for the end
console.log(await (await fetch(\`\${url}/\${id}?wait=30\`, { headers })).json());`;
}

/** The line that looks a request up. */
export function curlLookUp(call: ICall, id: string): string {
  const token = call.headers.Authorization ? ` -H "Authorization: ${call.headers.Authorization}"` : '';
  return `curl ${quoted(`${call.url}/${id}`)}${token}`;
}

function jsonOf(payload: IPayload): unknown {
  const text = payload.contentType.split(';')[0].trim() === 'application/json' ? plain(payload.bytes) : null;
  try {
    return text === null ? undefined : parseExact(text);
  } catch {
    return undefined;
  }
}

/** A JSON value as Python writes it. */
export function literal(value: unknown): string {
  if (Array.isArray(value)) {
    return `[${value.map(literal).join(', ')}]`;
  }
  if (value !== null && typeof value === 'object') {
    return `{${Object.entries(value).map(([key, one]) => `${JSON.stringify(key)}: ${literal(one)}`).join(', ')}}`;
  }
  return value === null ? 'None' : value === true ? 'True' : value === false ? 'False' : written(value);
}

function bytesLiteral(raw: Uint8Array): string {
  const letters = [...raw].map(byte => (byte >= 32 && byte < 127 && byte !== 34 && byte !== 92 ? String.fromCharCode(byte) : `\\x${byte.toString(16).padStart(2, '0')}`));
  return `b"${letters.join('')}"`;
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
