from __future__ import annotations

from pathlib import Path

import pytest
from cloudach_gateway import redis_address
from cloudach_gateway.settings import ConfigError, load, parse

DOCS = Path(__file__).parents[3] / "docs"
MODEL = "models: [{id: m, upstreams: ['http://127.0.0.1:1/v1/']}]\n"


def test_the_example_is_good() -> None:
    assert load(DOCS / "gateway.example.yaml").models[0].aliases == ("llama3-8b",)


def test_an_upstream_may_name_v1_or_not() -> None:
    assert parse(MODEL).models[0].upstreams == ("http://127.0.0.1:1",)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "models"),
        ("- a", "mapping"),
        ("models: [}", "YAML"),
        ("models: []", "models"),
        ("models: [{id: m, upstreams: ['nope']}]", "models.0.upstreams"),
        ("models: [{id: m, upstreams: []}]", "models.0.upstreams"),
        ("models: [{id: m, upstreams: ['http://engine:PORT']}]", "models.0.upstreams.0"),
        ("models: [{id: m, upstreams: ['http://engine:99999']}]", "models.0.upstreams.0"),
        ("models: [{id: m, upstreams: ['http://engine/v1/chat/completions']}]", "models.0.upstreams.0"),
        ("models: [{id: m, aliases: [''], upstreams: ['http://a']}]", "models.0.aliases.0"),
        ("models: [{id: m, aliases: ['a,b'], upstreams: ['http://a']}]", "models.0.aliases.0"),
        ("models: [{id: 'a,b', upstreams: ['http://a']}]", "models.0.id"),
        ("models: [{id: m, upstream_model: '', upstreams: ['http://a']}]", "models.0.upstream_model"),
        ("models: [{id: m, adapters: [{name: a, id: ' '}], upstreams: ['http://a']}]", "models.0.adapters.0.id"),
        ('models: [{id: m, api_key: "a\\r\\nb: c", upstreams: ["http://a"]}]', "models.0.api_key"),
        ("models: [{id: m, cache_salt: user, upstreams: ['http://a']}]", "models.0.cache_salt"),
        ("models: [{id: m, allowed_fields: [temperature], upstreams: ['http://a']}]", "models.0.allowed_fields"),
        ("models: [{id: m, allowed_media_domains: ['http://a'], upstreams: ['http://a']}]", "allowed_media_domains.0"),
        (MODEL + "cache_salt_secret: short", "cache_salt_secret"),
        (MODEL + "guided: {values: 0}", "guided.values"),
        (MODEL + "redis: {url: 'localhost:6379'}", "redis.url"),
        (MODEL + "redis: {url: ''}", "redis.url"),
        (MODEL + "redis: {url: 'redis://localhost:PORT'}", "redis.url"),
        (MODEL + "redis: {url: 'redis://localhost/zero'}", "redis.url"),
        (MODEL + "redis: {url: 'redis+sentinel://a:99999/s'}", "redis.url"),
        (MODEL + "timeouts: {total_s: .inf}", "timeouts.total_s"),
        (MODEL + "usage: {keep_days: .nan}", "usage.keep_days"),
        (MODEL + "usage: {keep_days: .inf}", "usage.keep_days"),
        (MODEL + "kubernetes: {wake_wait_s: .inf}", "kubernetes.wake_wait_s"),
        (MODEL + "kubernetes: {in_use_every_s: 56}", "kubernetes.in_use_every_s"),
        (MODEL + "limits: {default_max_tokens: 10000000000000}", "limits.default_max_tokens"),
        (MODEL + "listen: {host: 'localhost:80'}", "listen.host"),
        (MODEL + "listen: {port: 8080, metrics_port: 8080}", "both 8080"),
        (MODEL + "kubernetes: {label_selector: 'tier production'}", "kubernetes.label_selector"),
        (MODEL + "timeouts: {connect_s: -1}", "timeouts.connect_s"),
        (MODEL + "timeout: {}", "timeout"),
        (MODEL + "listen: {port: http}", "listen.port"),
        (MODEL + "kubernetes: {namespaces: ['a b']}", "kubernetes.namespaces"),
        (MODEL + "kubernetes: {namespaces: [a, a]}", "named twice"),
        ("models: [{id: m, aliases: [m], upstreams: ['http://a']}]", "used twice"),
        ("models: [{id: m, adapters: [{name: a}, {name: a}], upstreams: ['http://a']}]", "'m:a' is used twice"),
        ("models: [{id: m, adapters: [{name: a, id: m}], upstreams: ['http://a']}]", "'m' is used twice"),
        ("models: [{id: m, adapters: [{name: 'a:b'}], upstreams: ['http://a']}]", "models.0.adapters.0.name"),
    ],
)
def test_a_bad_setting_is_named(text: str, named: str) -> None:
    with pytest.raises(ConfigError, match=named.replace(".", r"\.")):
        parse(text)


@pytest.mark.parametrize("selector", ["", "tier=production", "!old, a/b.c in (x, y),z!=1", "a,b==c"])
def test_label_selectors(selector: str) -> None:
    assert parse(MODEL + f"kubernetes: {{label_selector: {selector!r}}}").kubernetes.label_selector == selector


def test_paths_are_relative_to_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "redis: {data_dir: data}\nkubernetes: {cache_file: ../models.json, kubeconfig: /k}\n"
    (tmp_path / "gateway.yaml").write_text(MODEL + text)
    monkeypatch.chdir("/")
    settings = load(tmp_path / "gateway.yaml")
    assert settings.redis.data_dir == tmp_path / "data"
    assert settings.kubernetes.cache_file == tmp_path / "../models.json"
    assert settings.kubernetes.kubeconfig == Path("/k")


def test_keys_in_the_folder_of_the_release_before_are_not_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its data_dir was relative to the current directory: the new one would be empty, and refuse every key."""
    file, cwd = tmp_path / "etc" / "gateway.yaml", tmp_path / "srv"
    file.parent.mkdir()
    file.write_text("models: [{id: m, upstreams: ['http://127.0.0.1:1']}]")
    (cwd / ".run/valkey/appendonlydir").mkdir(parents=True)
    monkeypatch.chdir(cwd)
    with pytest.raises(ConfigError) as caught:
        load(file)
    assert f"redis.data_dir: {cwd}/.run/valkey" in str(caught.value)
    assert f"move that folder to {tmp_path}/etc/.run/valkey" in str(caught.value)
    file.write_text(file.read_text() + f"\nredis: {{data_dir: {cwd}/.run/valkey}}")
    assert load(file).redis.data_dir == cwd / ".run/valkey"
    file.write_text("models: [{id: m, upstreams: ['http://127.0.0.1:1']}]")
    (cwd / ".run").rename(tmp_path / "etc/.run")
    assert load(file).redis.data_dir == tmp_path / "etc/.run/valkey"
    (cwd / ".run/valkey/appendonlydir").mkdir(parents=True)  # another installation's
    assert load(file).redis.data_dir == tmp_path / "etc/.run/valkey"


def test_certificates_in_the_url_of_redis_are_relative_to_the_file_too(tmp_path: Path) -> None:
    url = "rediss://:pw%2F@r:6379/0?ssl_ca_certs=ca.pem&ssl_cert_reqs=none"
    (tmp_path / "gateway.yaml").write_text(MODEL + f"redis: {{url: '{url}'}}")
    address = redis_address.parse(load(tmp_path / "gateway.yaml").redis.url or "")
    assert address.tls_options["ssl_ca_certs"] == str(tmp_path / "ca.pem")
    assert address.password == "pw/"


def test_models_of_a_cluster_alone() -> None:
    settings = parse("kubernetes: {enabled: true, namespaces: [serving]}")
    assert settings.kubernetes.namespaces == ("serving",)
    assert not settings.models


def test_values_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENGINE", "http://engine:1")
    text = "models: [{id: '${NAME:-m}', upstreams: ['${ENGINE}']}]"
    assert parse(text).models[0].upstreams == ("http://engine:1",)
    assert parse(text).models[0].id == "m"
    monkeypatch.delenv("ENGINE")
    with pytest.raises(ConfigError, match="ENGINE"):
        parse(text)


@pytest.mark.parametrize(
    "origin", ["chat.example.com", "https://chat.example.com/", "https://a.com/b", "https://*.a.com", "null", "", "a b"]
)
def test_what_is_no_origin(origin: str) -> None:
    with pytest.raises(ConfigError, match=r"cors\.origins"):
        parse(MODEL + f"cors: {{origins: ['{origin}']}}")


def test_origins() -> None:
    found = parse(MODEL + "cors: {origins: ['https://a.com', 'http://localhost:3000', '*']}").cors.origins
    assert found == ("https://a.com", "http://localhost:3000", "*")
