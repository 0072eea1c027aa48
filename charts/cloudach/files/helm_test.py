"""`helm test` streams an answer with the OpenAI SDK, trips a limit, and finds both in the metrics.

Environment: GATEWAY_URL, METRICS_HOST, METRICS_PORT, MODEL (empty: the first that is listed), TIMEOUT_S, and
CLOUDACH_REDIS_URL. LOSE_HEAD: the Model of NAMESPACE that loses its head in the end; empty: none.
"""

import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request

import openai

LIMIT = 3
"""Requests a minute of the key that is to trip."""


def main():
    deadline = time.monotonic() + float(os.environ["TIMEOUT_S"])
    made = []
    try:
        client = client_with_key(made)
        before = counted()
        model = os.environ.get("MODEL") or first_model(client, deadline)
        stream(client, model, deadline)
        trip(client_with_key(made, f"--requests-per-minute={LIMIT}"), model)
        in_metrics(before, deadline)
    finally:
        for key in made:
            cloudach("delete", key["id"])
    if os.environ.get("LOSE_HEAD"):
        import lose_head

        lose_head.main(os.environ["NAMESPACE"], os.environ["LOSE_HEAD"])
    print("helm test: good")


def client_with_key(made, *limits):
    """A client with a new key, which is added to `made`. Both end with the test, or after an hour."""
    made.append(cloudach("create", "--tenant=helm_test", "--name=helm-test", "--expires=1h", *limits))
    return openai.OpenAI(base_url=os.environ["GATEWAY_URL"] + "/v1", api_key=made[-1]["key"], max_retries=0)


def cloudach(action, *arguments):
    command = ["cloudach", "keys", action, *arguments, "--json"]
    done = subprocess.run(command, text=True, capture_output=True, check=False)
    if done.returncode:
        sys.exit(f"cloudach keys {action}: {done.stderr}")
    return json.loads(done.stdout)


def first_model(client, deadline):
    while True:
        names = [model.id for model in client.models.list()]
        if names:
            return names[0]
        if time.monotonic() > deadline:
            sys.exit("the gateway lists no model: apply a Model, or name one in test.model")
        time.sleep(2)


def stream(client, model, deadline):
    """One answer, whole. A model that starts, or sleeps and is woken by this, says when to ask again: by a status, or
    in the stream itself where that has had heart-beats."""
    while True:
        chunks = []
        try:
            for chunk in client.chat.completions.create(
                model=model,
                messages=[{"role": "user", "content": "What is the capital of France?"}],
                max_tokens=32,
                stream=True,
                stream_options={"include_usage": True},
            ):
                chunks.append(chunk)
            break
        except openai.APIError as error:
            refused = isinstance(error, openai.APIStatusError) and not isinstance(error, openai.InternalServerError)
            if chunks or refused:
                raise
            if time.monotonic() > deadline:
                sys.exit(f"{model} did not answer in time: {error}")
            print(f"waiting for {model}: {error}", flush=True)
            response = getattr(error, "response", None)
            time.sleep(min(10.0, float(response.headers.get("retry-after", 2)) if response is not None else 2.0))
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    reasons = [c.choices[0].finish_reason for c in chunks if c.choices and c.choices[0].finish_reason]
    if not text or len(chunks) < 3 or reasons not in (["stop"], ["length"]) or not chunks[-1].usage:
        sys.exit(f"no whole stream: {len(chunks)} chunks, text {text!r}, finish reasons {reasons}")
    print(f"streamed {len(chunks)} chunks from {model}: {text!r}", flush=True)


def trip(client, model):
    for _ in range(LIMIT + 1):
        try:
            client.chat.completions.create(model=model, messages=[{"role": "user", "content": "Hi"}], max_tokens=1)
        except openai.RateLimitError as error:
            if "retry-after" not in error.response.headers:
                sys.exit(f"a 429 without Retry-After: {error}")
            print(f"limit held: {error}", flush=True)
            return
    sys.exit(f"{LIMIT + 1} requests went through a key with {LIMIT} a minute")


def in_metrics(before, deadline):
    """Counters follow the last byte, so they may be a moment late."""
    while True:
        now = counted()
        if all(now[name] > before[name] for name in now):
            print(f"metrics: {now}", flush=True)
            return
        if time.monotonic() > deadline:
            sys.exit(f"the metrics did not move: {before} before, {now} now")
        time.sleep(1)


WANTED = {
    "answers": re.compile(r'^cloudach_generations_total\{.*outcome="finished".*\} (\S+)', re.M),
    "tokens": re.compile(r'^cloudach_tokens_total\{.*kind="completion".*\} (\S+)', re.M),
    "refusals": re.compile(r'^cloudach_rejections_total\{.*code="rate_limit_exceeded".*\} (\S+)', re.M),
}


def counted():
    """The counters, added up over all gateways: the headless Service resolves to each of them."""
    port = int(os.environ["METRICS_PORT"])
    found = socket.getaddrinfo(os.environ["METRICS_HOST"], port, type=socket.SOCK_STREAM)
    totals = dict.fromkeys(WANTED, 0.0)
    for host in sorted({address[0] for *_, address in found}):
        url = f"http://{f'[{host}]' if ':' in host else host}:{port}/metrics"
        with urllib.request.urlopen(url, timeout=10) as answer:
            text = answer.read().decode()
        for name, pattern in WANTED.items():
            totals[name] += sum(map(float, pattern.findall(text)))
    return totals


if __name__ == "__main__":
    main()
