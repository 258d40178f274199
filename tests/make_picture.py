"""Makes README's picture from a real run of the demo: ``python tests/make_picture.py``; wants Chromium on PATH."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import MONOKAI

PICTURE = Path(__file__).parent.parent / ".github" / "demo.png"
WIDTH = 108


def main() -> None:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    assert chromium, "Chromium is not on PATH"
    with tempfile.TemporaryDirectory() as directory:
        os.environ["JUPYTER_CORTEX_HOME"] = f"{directory}/home"
        os.chdir(directory)
        from jupyter_cortex import cli, demo
        from jupyter_cortex.operator import local

        context = cli.Context("local", "pretty")
        context.console = Console(record=True, width=WIDTH, force_terminal=True, highlight=False)
        context.console.print("[dim]$[/] cortex demo")
        try:
            demo.run(context, "iris-classifier")
        finally:
            local.down(context.settings)
        code = "<pre style='font: 14px/1.35 monospace; margin: 18px'>{code}</pre>"
        html = context.console.export_html(theme=MONOKAI, inline_styles=True, code_format=code)
        html = html.replace(directory, "~")
        # The story up to the first answer fits a picture; the rest repeats it.
        html = re.split(r"(?=\n[^\n]*\$</span> curl -X POST[^\n]*text/plain)", html)[0]
        page = Path(directory) / "page.html"
        page.write_text(f"<body style='margin:0;background:#0c0c0c;color:#d9d9d9'>{html}</body>")
        PICTURE.parent.mkdir(exist_ok=True)
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run", "--disable-background-networking"]
        command = [chromium, *flags, f"--user-data-dir={directory}/chromium", "--window-size=1000,1170", f"--screenshot={PICTURE}", page.as_uri()]
        subprocess.run(command, check=True, capture_output=True)


if __name__ == "__main__":
    main()
