# The service in an image: builds from a checkout and from package registries alone. See docs/how-to/container.md.
ARG PYTHON_VERSION=3.12

FROM python:${PYTHON_VERSION}-slim AS wheel
WORKDIR /build
COPY constraints.txt pyproject.toml README.md LICENSE ./
COPY src src
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /dist .

FROM python:${PYTHON_VERSION}-slim AS packages
# PyPI's torch for Linux brings CUDA, some gigabytes. "" takes that one: for a GPU, or where only PyPI is reached.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ARG TORCH_VERSION=2.13.0
ARG EXTRAS=files,mcp,server,starter,telemetry
RUN python -m venv /opt/venv
COPY constraints.txt /build/constraints.txt
# In a layer of its own, which a change of this package does not build again.
RUN /opt/venv/bin/pip install --no-cache-dir --constraint /build/constraints.txt \
    ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} "torch==${TORCH_VERSION}"
COPY --from=wheel /dist /dist
RUN /opt/venv/bin/pip install --no-cache-dir --constraint /build/constraints.txt \
    ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} "$(echo /dist/*.whl)[${EXTRAS}]"

FROM python:${PYTHON_VERSION}-slim
LABEL org.opencontainers.image.title="rerank-integrations" \
      org.opencontainers.image.description="ColBERT search and reranking over HTTP, and as tools for agents" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN groupadd --gid 10001 rerank && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /cache rerank \
    && mkdir /indexes /cache && chown rerank:rerank /indexes /cache
COPY --from=packages /opt/venv /opt/venv
# Models from the hub and compiled search loops are stored below /cache, everything else is only read.
ENV PATH=/opt/venv/bin:$PATH \
    HOME=/cache \
    HF_HOME=/cache/huggingface \
    RERANK_INTEGRATIONS_CACHE=/cache/rerank-integrations \
    NUMBA_CACHE_DIR=/cache/numba \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
USER 10001:10001
WORKDIR /indexes
VOLUME ["/indexes", "/cache"]
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=300s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/ready', timeout=4)"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["rerank-integrations"]
CMD ["serve", "--host", "0.0.0.0", "--port", "8000", "--reranker", "starter"]
