/**
 * What a new async API notebook begins with: it runs as it stands.
 */
const markdown = (id: string, source: string) => ({ cell_type: 'markdown', id, metadata: {}, source });
const code = (id: string, source: string) => ({ cell_type: 'code', id, metadata: {}, source, execution_count: null, outputs: [] });

export const TEMPLATE = {
  nbformat: 4,
  nbformat_minor: 5,
  metadata: {
    kernelspec: { name: 'cortex', display_name: 'Cortex (Python 3)', language: 'python' },
    language_info: { name: 'python' }
  },
  cells: [
    markdown(
      'cortex-intro',
      '# A new async API\n\nRename this notebook: its name becomes the name of the API. Run all cells, then press **Deploy** in the toolbar.'
    ),
    code('cortex-load', '%load_ext jupyter_cortex'),
    code(
      'cortex-handler',
      `import time


class Handler:
    def __init__(self, config, metrics_client):
        """Runs once in each replica: load models and open connections here."""
        self.greeting = config.get("greeting", "hello")
        self.metrics = metrics_client

    def handle_async(self, payload, request_id):
        """Runs for each request: payload is parsed by its Content-Type, the answer is a dict that JSON can hold."""
        print("greeting", payload["name"])
        started = time.perf_counter()
        text = f"{self.greeting}, {payload['name']}"
        self.metrics.histogram("greeting_seconds", time.perf_counter() - started)
        return {"text": text}`
    ),
    markdown('cortex-try', 'Try a payload here first: it goes through the very code that the published API runs.'),
    code('cortex-payload', '%%cortex payload\n{"name": "world"}'),
    markdown(
      'cortex-keep',
      'Keep it as a sample, and every deploy runs it before it goes live:\n\n```\n%cortex sample world\n```\n\nWhat would be published, with a reason for each line: `%cortex show`.'
    )
  ]
};
