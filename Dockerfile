# A model that answers over HTTP, on a CPU, not as root. Build in a checkout:
#   docker build -t piip --build-arg PIP_EXTRA_INDEX_URL=... .
# with the index of PyTorch's wheels for CPUs, without which the image holds those for GPUs and is six times as large
# (and --build-arg EXTRAS=serve,export to answer with exported files);
#   docker run -p 8000:8000 -e PIIP_TOKEN=choose-one -v "$PWD/runs:/runs:ro" piip --weights /runs/detection/NAME
FROM python:3.12-slim AS build
ARG PIP_EXTRA_INDEX_URL
ARG EXTRAS=serve
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY src src
RUN python -m venv /opt/piip \
 && /opt/piip/bin/pip install --no-cache-dir ".[$EXTRAS]"

FROM python:3.12-slim
COPY --from=build /opt/piip /opt/piip
RUN useradd --create-home --uid 10001 piip
USER piip
ENV PATH=/opt/piip/bin:$PATH PYTHONUNBUFFERED=1
EXPOSE 8000
HEALTHCHECK --start-period=120s CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/ready', timeout=5)"]
ENTRYPOINT ["piip", "serve", "--host", "0.0.0.0"]
