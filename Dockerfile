# CPU:   docker build -t efnet .
# CUDA:  docker build -t efnet:cuda --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu130 .
# Run:   docker run --rm -v "$PWD:/data" efnet predict --checkpoint /data/runs/x --rgb /data/rgb --thermal /data/thermal --out /data/out
#        docker run --rm -p 8000:8000 -v "$PWD:/data" efnet serve --checkpoint /data/runs/x --host 0.0.0.0
#        docker run --rm --gpus all ... efnet:cuda ...
FROM python:3.12-slim AS build
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /venv
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY src src
# PyTorch first and from its own index: which build it is decides what the image runs on.
RUN /venv/bin/pip install --index-url "$TORCH_INDEX" --extra-index-url https://pypi.org/simple -c constraints.txt torch \
 && /venv/bin/pip install -c constraints.txt ".[all]"

FROM python:3.12-slim
COPY --from=build /venv /venv
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 HF_HUB_DISABLE_TELEMETRY=1
RUN useradd --create-home --uid 1000 efnet
USER efnet
WORKDIR /data
EXPOSE 8000
ENTRYPOINT ["efnet"]
CMD ["--help"]
