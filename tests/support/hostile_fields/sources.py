"""What servers say: repos, cards, names of files, errors, reason phrases, places that one is sent to."""

import json

from support.hostile_fields import Stage, Words, case
from support.hostile_text import IN_FILE_NAME, planted
from support.hub_server import Fault, HubServer, Repo
from support.registry_server import Blob, RegistryServer, json_blob, manifest_of
from support.tiny_gguf import tiny_gguf


def a_hub(stage: Stage) -> HubServer:
    """Return a Hub with a repo that is hostile wherever it can be."""
    hub: HubServer = stage.request.getfixturevalue("hub")
    card = {
        "base_model": [planted("base")], "datasets": [planted("dataset")], "language": [planted("language")],
        "license_name": planted("licence"), "license_link": planted("link"), "pipeline_tag": planted("task"),
    }  # fmt: skip
    facts = {
        "gguf": {"total": 1_000_000, "architecture": planted("arch"), "context_length": 512},
        "pipeline_tag": planted("task"),
    }  # fmt: skip
    files = {"m-Q8_0.gguf": tiny_gguf(n_blocks=1)}
    hub.add(Repo("acme/hostile-GGUF", files, licence=planted("licence"), card=card, facts=facts))
    return hub


@case("search", "arch", "licence")
def plant_search(stage: Stage) -> Words:
    a_hub(stage)
    return ["search", "hostile"]


@case("show, of a repo", "arch", "licence", "base", "dataset", "language", "task")
def plant_repo(stage: Stage) -> Words:
    a_hub(stage)
    return ["show", "acme/hostile-GGUF"]


@case("show, of a repo, as JSON")
def plant_repo_json(stage: Stage) -> Words:
    return [*plant_repo(stage), "--json"]


@case("fit, of a repo")
def plant_fit(stage: Stage) -> Words:
    a_hub(stage)
    return ["fit", "acme/hostile-GGUF"]


@case("pull --dry-run")
def plant_listing(stage: Stage) -> Words:
    hub = a_hub(stage)
    hub.repos["acme/hostile-GGUF"].files[f"x{IN_FILE_NAME}-Q4_0.gguf"] = b"GGUF"
    return ["pull", "acme/hostile-GGUF", "--dry-run"]


@case("pull, no such quant", "quant")
def plant_quant(stage: Stage) -> Words:
    a_hub(stage)
    return ["pull", f"acme/hostile-GGUF:{planted('quant')}"]


@case("pull, an error of the Hub")
def plant_hub_error(stage: Stage) -> Words:
    body = json.dumps({"error": planted("error")}).encode()
    headers = {"X-Error-Message": planted("message").encode("ascii", "ignore").decode().replace("\r", "")}
    a_hub(stage).faults.append(Fault(method=None, times=None, status=400, body=body, headers=headers))
    return ["pull", "acme/hostile-GGUF"]


@case("pull, a web address", "address")
def plant_address(stage: Stage) -> Words:
    return ["pull", f"https://127.0.0.1:1/{planted('address')}"]


@case("pull, a place that one is sent to")
def plant_redirect(stage: Stage) -> Words:
    hub = a_hub(stage)
    place = planted("place").encode("latin-1", "ignore").decode("latin-1").replace("\r", "")
    hub.faults.append(Fault(method=None, times=None, status_of_body=302, headers={"Location": f"http://{place}"}))
    return ["pull", hub.url("m.gguf")]


@case("pull, of a registry")
def plant_registry(stage: Stage) -> Words:
    server: RegistryServer = stage.serve(RegistryServer())
    layer = Blob(planted("media"), tiny_gguf(n_blocks=1), {"org.cncf.model.filepath": f"x{IN_FILE_NAME}.gguf"})
    config = json_blob(planted("config"), {"config": {"quantization": planted("quant"), "format": planted("format")}})
    server.put("o/m", "latest", manifest_of([layer], config), [layer, config])
    return ["pull", f"oci://{server.host}/o/m", "--dry-run"]


@case("pull, no such tag")
def plant_tags(stage: Stage) -> Words:
    server: RegistryServer = stage.serve(RegistryServer())
    server.manifests["o/m", planted("tag")] = ("x", b"{}")
    return ["pull", f"oci://{server.host}/o/m:none"]


@case("login", "user")
def plant_user(stage: Stage) -> Words:
    a_hub(stage).accounts["hf_" + "a" * 30] = planted("user")
    stage.monkeypatch.setenv("HF_TOKEN", "hf_" + "a" * 30)
    return ["login", "--status"]
