"""Weights that a file brings replace the training before them; what comes after still counts."""

from __future__ import annotations

from jupyter_cortex.project.notebook import module
from jupyter_cortex.project.notebook.cells import Cell, Notebook
from jupyter_cortex.project.notebook.slicing import slice_timeline
from jupyter_cortex.project.notebook.steps import timeline
from jupyter_cortex.project.notebook.surprises import surprises

HANDLER = "class Handler:\n    def handle_async(self, payload):\n        return {'y': model(payload)}"


def sliced(*cells: str) -> tuple[str, list[str]]:
    notebook = Notebook(
        [Cell(text, number=at + 1) for at, text in enumerate(cells)],
        loading=lambda name, target: f"{target}.load_state_dict(read('{name}.pt')); {target}.eval()",
    )
    found = slice_timeline(timeline(notebook))
    text, _ = module.write(found)
    return text, [str(row) for row in surprises(found, notebook, None)]


BEFORE = ("from lib import Net, SGD, read", "model = Net()\noptimizer = SGD(model)", "model.train()\noptimizer.step()\nmodel.fit()")


def test_the_training_before_a_save_stays_behind_and_is_not_remarked_upon() -> None:
    text, said = sliced(*BEFORE, "%cortex save model", HANDLER)
    assert "model = Net()" in text
    assert "model.load_state_dict(read('model.pt'))" in text
    for gone in ("model.train()", "model.fit()", "optimizer"):
        assert gone not in text
        assert not any(gone in row for row in said)


def test_what_changes_the_model_after_the_save_is_taken() -> None:
    text, _ = sliced(*BEFORE, "%cortex save model", "model.half()", HANDLER)
    assert text.index("load_state_dict") < text.index("model.half()")
    assert "fit" not in text


def test_without_a_save_the_training_is_taken_and_remarked_upon() -> None:
    text, said = sliced(*BEFORE, HANDLER)
    assert "model.fit()" in text
    assert any("%cortex save model" in row for row in said)


TORCH = (
    "import torch\ntorch.manual_seed(0)\nmodel = torch.nn.Linear(2, 1)\noptimizer = torch.optim.Adam(model.parameters())",
    "for rows in batches:\n    optimizer.zero_grad()\n    torch.nn.functional.mse_loss(model(rows), rows).backward()\n    optimizer.step()",
)


def test_the_gradient_of_a_module_s_function_is_no_change_of_the_module() -> None:
    text, said = sliced("batches = [1]", *TORCH, "%cortex save model", HANDLER)
    assert "torch.manual_seed(0)" in text
    for gone in ("for rows", "optimizer", "mse_loss", "batches"):
        assert gone not in text
        assert not any(gone in row for row in said)


def test_the_hint_for_a_training_loop_names_what_it_trains() -> None:
    text, said = sliced("import batches", *TORCH, "torch.sigmoid(model(3)).backward()", HANDLER)
    assert "sigmoid" not in text
    loop = "for rows in batches:\n    model.fit(rows)"
    _, said = sliced("from lib import Net, batches\nmodel = Net()", loop, HANDLER)
    assert [row for row in said if "%cortex save model" in row]
    assert not [row for row in said if "%cortex save rows" in row]


def test_what_sets_a_module_up_is_not_remarked_upon_for_the_time_of_its_import() -> None:
    cell = Cell("import torch\ntorch.manual_seed(0)", number=1, seconds=9.6)
    found = slice_timeline(
        timeline(Notebook([cell, Cell("class Handler:\n    def handle_async(self):\n        return {'y': torch.rand(1)}", number=2)]))
    )
    assert "torch.manual_seed(0)" in module.write(found)[0]
    assert [row for row in surprises(found, Notebook([cell]), None) if row.kind == "training"] == []
