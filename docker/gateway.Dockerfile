# The gateway, and `cloudach`, its administration. From the repository's root:
#   docker build -f docker/gateway.Dockerfile -t ghcr.io/cloudach/gateway:0.2.0 .
ARG BASE=python:3.11.14-slim-bookworm

FROM ${BASE} AS build
COPY --from=ghcr.io/astral-sh/uv:0.13.9 /uv /usr/local/bin/uv
WORKDIR /src
COPY pyproject.toml uv.lock ./
COPY libs libs
COPY services services
COPY scripts/image-root.sh scripts/
# The OpenAI SDK is for `helm test`, whose pod runs this image.
RUN UV_PYTHON=/usr/local/bin/python3.11 scripts/image-root.sh cloudach-gateway /image helm-test

FROM ${BASE}
COPY --from=build /image/ /
ENV PATH=/opt/cloudach/bin:/usr/local/bin:/usr/bin:/bin PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
USER 65532:65532
WORKDIR /tmp
EXPOSE 8000 9090
ENTRYPOINT ["cloudach-gateway"]
