"""What comes along with a model of a registry is in its manifest, and its parameters are defaults."""

import pytest

from owm.library.configuring import effective
from owm.store import pull
from owm.store.local import Store
from owm.store.pull import PullPlan
from owm.store.refs import parse
from support.facts import inspect, model_bytes
from support.registry_server import OLLAMA, Blob, RegistryServer, ollama_model

GGUF = model_bytes(10_000)


def test_the_extras_of_a_pull_are_in_its_manifest(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    with RegistryServer(needs_token=True) as server:
        monkeypatch.setenv("OWM_OLLAMA_REGISTRY", server.base)
        layers = [
            Blob(f"{OLLAMA}.template", b"{{ .Prompt }}"),
            Blob(f"{OLLAMA}.params", b'{"temperature": 0.25, "top_k": 7}'),
            Blob(f"{OLLAMA}.license", b"MIT License"),
            Blob(f"{OLLAMA}.license", b"Apache License Version 2.0"),
        ]
        server.put("library/tiny", "latest", *ollama_model(GGUF, *layers))
        plan = pull.plan(parse("ollama:tiny"), store)
        assert isinstance(plan, PullPlan)
        del server.blobs[layers[0].digest]  # a model is whole without its small files
        model = pull.execute(plan, store, inspect=inspect)
    assert model.manifest is not None
    files = {(record.role, record.path.rpartition("/")[2]) for record in model.manifest.extras}
    assert files == {("params", "params.json"), ("licence", "LICENSE.txt"), ("licence", "LICENSE-2.txt")}
    assert model.manifest.generation_config is not None
    sampling, settings = effective(model, store, {})
    assert (sampling.temp, sampling.top_k) == (0.25, 7)
    assert settings["temp"].origin == "generation_config.json"
    store.verify(model)
    store.remove(model, remove_hub_files=lambda paths: None)
    assert [path for path in (store.home / "models").rglob("*") if path.is_file()] == []
