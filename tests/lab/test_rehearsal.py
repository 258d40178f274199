"""A version is rehearsed from a notebook: the button, the page that follows it, and the decision."""

from __future__ import annotations

from ..conftest import Environment
from .conftest import KernelMaker, Lab

YAML = """
- name: lab-rehearsal
  kind: AsyncAPI
  handler: {type: python, path: handler.py}
  retain: {payload: always}
  rehearse: true
"""
HANDLER = "class Handler:\n    def handle_async(self, payload):\n        return {'text': %s}"


def test_a_notebook_is_rehearsed_followed_and_promoted(lab: Lab, kernel: KernelMaker, environment: Environment) -> None:
    name, path = "lab-rehearsal", "rehearsal/n.ipynb"
    notebook = lab.notebook(path, HANDLER % "payload['text']")
    (lab.root / "rehearsal" / "cortex.yaml").write_text(YAML)
    one = kernel(directory="rehearsal")
    one.run_all(HANDLER % "payload['text']")
    lab.ask("deploy", one, path, notebook).worked()
    client = environment.client()
    sent = [client.submit(name, {"text": text}) for text in ("a", "B")]
    for request_id in sent:
        client.result(name, request_id, wait=30)

    louder = HANDLER % "payload['text'].upper()"
    notebook = lab.notebook(path, louder)
    one.run_all(louder)
    shown = lab.ask("show", one, path, notebook).worked()
    assert (shown["document"]["rehearse"], shown["live"]["version"], shown["live"]["keeps_payloads"]) == (True, 1, True)
    page = lab.page(lab.get("snapshot").json()["seq"])
    told = lab.ask("deploy", one, path, notebook, rehearse=20)
    assert told.worked()["deployed"][0]["outcome"] == "rehearsing"
    assert one.value("1 + 1") == 2, "the kernel does not wait for the rehearsal"
    frame = page.until(
        lambda frame: any(row["name"] == name and (row["rehearsal"] or {}).get("state") == "rehearsed" for row in frame.get("apis", [])),
        "the page hears that it was rehearsed",
    )
    (row,) = [row for row in frame["apis"] if row["name"] == name]
    assert (row["live"], row["rehearsal"]["counts"]) == (1, {"changed": 1, "same_result": 1})
    report = lab.get(f"api/apis/{name}/deployments/2/rehearsal").json()
    assert [(one["id"], one["verdict"]) for one in report["rows"]] == [(sent[0], "changed"), (sent[1], "same_result")]

    assert lab.post(f"api/apis/{name}/deployments/2/promote", json={"source": path, "who": "somebody else"}).json()["outcome"] == "updating"
    page.until(
        lambda frame: any(row["name"] == name and row["live"] == 2 and row["rehearsal"] is None for row in frame.get("apis", [])), "it is live"
    )
    (entry,) = client.audit(name)
    assert (entry["what"], entry["source"]) == ("promote", path)
    assert entry["who"] not in ("", "somebody else"), "whoever runs this server, whatever the page says"
    refused = lab.post(f"api/apis/{name}/deployments/2/drop")
    assert (refused.status_code, refused.json()["code"]) == (409, "conflict")
    page.close()
    for wrong in (0, True, "5"):
        assert lab.ask("deploy", one, path, notebook, rehearse=wrong).problem["detail"] == "`rehearse` must be a whole number"
    client.delete(name)
