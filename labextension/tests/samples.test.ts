import { describe, expect, it } from 'vitest';

import { samplesOf } from '../src/samples';

/** A contents manager over a few files. */
function contents(files: Record<string, string>): any {
  return {
    get: async (path: string, options?: { format?: string }) => {
      if (path in files) {
        return { content: options?.format === 'base64' ? btoa(files[path]) : files[path] };
      }
      const directory = path ? `${path}/` : '';
      const inside = Object.keys(files).filter(name => name.startsWith(directory));
      if (path && !inside.length) {
        throw new Error('404');
      }
      return { content: inside.map(name => ({ name: name.slice(directory.length), path: name, size: files[name].length })) };
    }
  };
}

describe('the samples of a notebook', () => {
  it('are those beside it, text and bytes', async () => {
    const found = await samplesOf(
      contents({
        'work/samples/b.yaml': 'content_type: application/json\nbody: \'{"petal": 1}\'\n',
        'work/samples/a.yml': 'content_type: image/png\nbody_file: a.bin\n',
        'work/samples/a.bin': '\u0001\u00ff'
      }),
      'work/iris.ipynb'
    );
    expect(found.map(one => one.name)).toEqual(['a', 'b']);
    expect([...found[0].bytes]).toEqual([1, 255]);
    expect(new TextDecoder().decode(found[1].bytes)).toBe('{"petal": 1}');
  });

  it('are not those that another notebook of the directory keeps; one that is gone keeps none', async () => {
    const files = {
      'iris.ipynb': '{}',
      'other.ipynb': '{}',
      'samples/a.yaml': 'content_type: text/plain\nbody: a\nnotebook: other.ipynb\n',
      'samples/b.yaml': 'content_type: text/plain\nbody: b\nnotebook: iris.ipynb\n',
      'samples/c.yaml': 'content_type: text/plain\nbody: c\nnotebook: gone.ipynb\n'
    };
    expect((await samplesOf(contents(files), 'iris.ipynb')).map(one => one.name)).toEqual(['b', 'c']);
    expect((await samplesOf(contents(files), 'other.ipynb')).map(one => one.name)).toEqual(['a', 'c']);
  });

  it('leave out what is broken or points elsewhere, and are none where there is no directory', async () => {
    const files = { 'samples/x.yaml': ': : :', 'samples/y.yaml': 'content_type: a/b\nbody_file: ../../secret\n', 'samples/z.yaml': 'content_type: text/plain\nbody: hello\n' };
    expect((await samplesOf(contents(files), 'iris.ipynb')).map(one => one.name)).toEqual(['z']);
    expect(await samplesOf(contents({}), 'iris.ipynb')).toEqual([]);
  });
});
