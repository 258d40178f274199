"""Makes README's picture from a real run of the iris notebook: ``python tests/make_picture.py``; wants Chromium on PATH."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from jupyter_cortex import demo
from jupyter_cortex.project import run_notebook

PICTURE = Path(__file__).parent.parent / ".github" / "notebook.png"
#: What of the notebook the picture shows: the cells whose text begins so, in this order.
SHOWN = ("class Handler", '%%cortex payload --content-type application/json\n{"', "%cortex show", "%cortex deploy")
SIZE = (1180, 1640)


def main() -> None:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    assert chromium, "Chromium is not on PATH"
    with tempfile.TemporaryDirectory() as directory:
        os.environ["JUPYTER_CORTEX_HOME"] = f"{directory}/home"
        os.chdir(directory)
        demo.write_notebook(Path(directory) / "iris-classifier")
        # Without parameters: a cell of papermill's would shift the numbers of all cells behind it.
        run_notebook.run(Path(directory) / "iris-classifier" / demo.NOTEBOOK, {})
        subprocess.run([sys.executable, "-m", "jupyter_cortex.cli", "down"], check=True, capture_output=True)
        document = json.loads(Path("iris-classifier/iris-classifier.ipynb").read_text())
        cells = [cell for cell in document["cells"] if cell["cell_type"] == "code"]
        document["cells"] = [next(cell for cell in cells if "".join(cell["source"]).startswith(begin)) for begin in SHOWN]
        Path("picture.ipynb").write_text(json.dumps(document).replace(directory, "~"))
        subprocess.run([sys.executable, "-m", "nbconvert", "--to", "html", "picture.ipynb"], check=True, capture_output=True)
        PICTURE.parent.mkdir(exist_ok=True)
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run", "--disable-background-networking"]
        size = f"--window-size={SIZE[0]},{SIZE[1]}"
        page = (Path(directory) / "picture.html").as_uri()
        command = [chromium, *flags, f"--user-data-dir={directory}/chromium", size, f"--screenshot={PICTURE}", page]
        subprocess.run(command, check=True, capture_output=True)


if __name__ == "__main__":
    main()
