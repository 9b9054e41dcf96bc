# The gateway. From the repository's root:
#   docker build -f docker/gateway.Dockerfile -t serac-gateway .
# Build arguments: PIP_EXTRA_INDEX_URL, an index with PyTorch's CPU builds, makes the image several GB
# smaller; FAISS=gpu takes the index that uses a CUDA device.

FROM python:3.11-slim AS build
ARG PIP_EXTRA_INDEX_URL=""
ARG FAISS="cpu"
WORKDIR /src
RUN python -m venv /opt/serac
COPY LICENSE NOTICE README.md constraints.txt pyproject.toml ./
COPY serac_gateway serac_gateway
COPY configs/demo configs/demo
RUN --mount=type=cache,target=/root/.cache/pip \
    /opt/serac/bin/python -m pip install --constraint constraints.txt ".[${FAISS},otel]"

FROM python:3.11-slim
RUN useradd --uid 10001 --no-create-home --home-dir /var/lib/serac serac \
    && install -d -o serac -g serac /var/lib/serac
COPY --from=build /opt/serac /opt/serac
# The Gemma terms ask that their notice goes along with the model.
COPY LICENSE NOTICE /usr/share/doc/serac/
ENV PATH="/opt/serac/bin:${PATH}" SERAC_DATA_DIR="/var/lib/serac"
USER 10001
# The embedded store, where no Redis is named, and converted copies of the models.
VOLUME /var/lib/serac
EXPOSE 8080
# It listens on every address of the container, so it demands API keys, and starts once there is one:
#   docker run --rm -v serac:/var/lib/serac serac-gateway keys create --offline --role admin
#   docker run -v serac:/var/lib/serac -p 8080:8080 serac-gateway
# Or SERAC_ACCESS__REQUIRED=false, where nobody but you reaches the port.
# The first start converts the embedded models, which takes some ten seconds.
HEALTHCHECK --interval=10s --timeout=5s --start-period=5m --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8080/health/ready', timeout=4)"]
ENTRYPOINT ["serac"]
CMD ["serve", "--host", "0.0.0.0"]
