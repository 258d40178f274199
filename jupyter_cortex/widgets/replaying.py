"""What can be done with a replayed request, as buttons below it: keep it as a sample, put its group back into the queue."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ipywidgets

from ..client import Client
from ..commands.failures import keep_workload, still_failing
from ..commands.verbs import as_in_a_cell
from ..core.errors import CortexError
from .style import esc, page
from .views import show_widget


class Actions:
    """``root``, ``notebook``: where samples are kept, and for which notebook (None: not known). ``group``: fingerprint and versions of the failure,
    None for a request that did not fail. ``fixed``: whether it succeeds here now; ``requeues``: whether the gateway can run it again as it came."""

    def __init__(
        self,
        client: Client,
        api: str,
        root: Path,
        notebook: Path | None,
        source: str,
        request_id: str,
        group: dict[str, Any] | None,
        *,
        fixed: bool,
        requeues: bool,
    ) -> None:
        self._client, self._api, self._root, self._notebook, self._source = client, api, root, notebook, source
        self._request_id, self._group = request_id, group
        self.page = ipywidgets.HTML()
        self.keep = ipywidgets.Button(
            description="Keep as sample", icon="save", disabled=not request_id, tooltip="the checks before each deploy then run it"
        )
        self.requeue = ipywidgets.Button(
            description="Requeue group",
            icon="repeat",
            disabled=not (fixed and group and requeues),
            tooltip="runs all failed requests of this group again on what is live, under their old ids"
            if fixed and requeues
            else "once it succeeds here"
            if requeues
            else "nobody can run it again as it came: its payload was not kept, or was redacted",
        )
        self.said = ipywidgets.HTML()
        row = {"align_items": "center", "flex_flow": "row wrap"}
        self.view = ipywidgets.VBox([self.page, ipywidgets.HBox([self.keep, self.requeue, self.said], layout=row)])
        self.keep.on_click(lambda _: self._done(self._keep))
        self.requeue.on_click(lambda _: self._done(self._requeue))

    def show(self, shown: dict[str, str]) -> None:
        """``shown``: the replay as HTML and text; exports keep it without the buttons."""
        self.page.value = shown["text/html"]
        show_widget(self.view, shown)

    def _done(self, action: Any) -> None:
        try:
            kind, said = "good", action()
        except CortexError as error:
            kind, said = "bad", as_in_a_cell(error.message)
        self.said.value = page(f'<span class="{kind}">{esc(said)}</span>')

    def _keep(self) -> str:
        path, note = keep_workload(self._client, self._api, self._request_id, self._root, notebook=self._notebook)
        return f"kept {path.relative_to(self._root)}: {note}"

    def _requeue(self) -> str:
        assert self._group is not None
        if note := still_failing(self._client, self._api, self._group["versions"]):
            return f"not yet: {note}; deploy what succeeds here, then press again"
        self.requeue.disabled = True
        try:
            done = self._client.requeue(self._api, fingerprint=self._group["fingerprint"], source=self._source, progress=self._progress)
        finally:
            self.requeue.disabled = False
        refused = f", {len(done['refused'])} refused: {done['refused'][0]['reason']}" if done["refused"] else ""
        return f"{len(done['requeued'])} requeued{refused}"

    def _progress(self, step: str) -> None:
        self.said.value = page(f'<span class="dim">{esc(step)}</span>')
