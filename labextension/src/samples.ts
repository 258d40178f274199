/**
 * The samples beside a notebook: what its author tried and kept, as payloads to send.
 */
import { PathExt } from '@jupyterlab/coreutils';
import type { Contents } from '@jupyterlab/services';
import * as YAML from 'yaml';

import type { IPayload } from './client';

export interface ISample extends IPayload {
  name: string;
}

/** Larger files are not read into the browser for this, in bytes. */
const LIMIT = 1024 * 1024;

/** Those in ``samples/`` of the notebook's directory but what its neighbours keep; [] where there are none or the files cannot be read. */
export async function samplesOf(contents: Contents.IManager, notebook: string): Promise<ISample[]> {
  const home = PathExt.dirname(notebook);
  const directory = PathExt.join(home, 'samples');
  try {
    const beside = (await contents.get(home)).content as Contents.IModel[];
    const neighbours = new Set(beside.map(one => one.name).filter(name => name !== PathExt.basename(notebook)));
    const found = (await contents.get(directory)).content as Contents.IModel[];
    const files = found.filter(one => /^[A-Za-z0-9].*\.ya?ml$/.test(one.name) && (one.size ?? 0) <= LIMIT);
    const read = await Promise.all(files.map(file => sample(contents, directory, file, neighbours).catch(() => null)));
    return read.filter((one): one is ISample => one !== null).sort((a, b) => (a.name < b.name ? -1 : 1));
  } catch {
    return [];
  }
}

async function sample(contents: Contents.IManager, directory: string, file: Contents.IModel, neighbours: Set<string>): Promise<ISample | null> {
  const document = YAML.parse((await contents.get(file.path, { type: 'file', format: 'text' })).content as string);
  const name = file.name.replace(/\.ya?ml$/, '');
  if (typeof document?.content_type !== 'string' || neighbours.has(document.notebook)) {
    return null;
  }
  if (typeof document.body === 'string') {
    return { name, contentType: document.content_type, bytes: new TextEncoder().encode(document.body) };
  }
  if (typeof document.body_file !== 'string' || PathExt.basename(document.body_file) !== document.body_file) {
    return null;
  }
  const body = await contents.get(PathExt.join(directory, document.body_file), { type: 'file', format: 'base64' });
  const text = atob(String(body.content).replace(/\s/g, ''));
  return { name, contentType: document.content_type, bytes: Uint8Array.from(text, letter => letter.charCodeAt(0)) };
}
