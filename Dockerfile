# Amiss in a container; docs/container.md says how to build, run and test it.
#
#   docker build -t amiss .                                 ONNX Runtime, on a GPU or without
#   docker build -t amiss --build-arg DEVICE=cpu .          small: without the CUDA libraries
#   docker build -t amiss:torchserve --target torchserve .  TorchServe and TorchScript
#   docker build -t amiss:train --target train .

# Constraints were tested on Python 3.11. Any base will do that has python3 with venv and ensurepip.
ARG BASE=python:3.11-slim-bookworm

# ---- two wheels of Amiss: one that only asks for what it needs, and the whole

FROM ${BASE} AS tools
ARG DEVICE=cuda
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore PIP_QUIET=1 \
    PIP="/tools/bin/python -m pip --python /opt/amiss/bin/python"
WORKDIR /src
RUN --mount=type=secret,id=pip_conf,target=/etc/pip.conf \
    --mount=type=cache,target=/root/.cache/pip \
    python3 -m venv /tools && \
    /tools/bin/python -m pip install pip==26.3 hatchling==1.33.0 && \
    python3 -m venv --without-pip /opt/amiss
COPY pyproject.toml constraints.txt ./
# ONNX Runtime is one package for CUDA and another for the CPU. The wheels built here name the one
# that is there, so that `pip check` holds. The first wheel has no code: it brings the requirements.
RUN case "$DEVICE" in \
      cpu) sed -i 's/onnxruntime-gpu/onnxruntime/' pyproject.toml constraints.txt ;; \
      cuda) sed -i 's/"onnxruntime-gpu>/"onnxruntime-gpu[cuda,cudnn]>/' pyproject.toml ;; \
      *) echo "DEVICE must be cuda or cpu, got '$DEVICE'" >&2; exit 1 ;; \
    esac && \
    mv pyproject.toml constraints.txt / && cp /pyproject.toml . && touch README.md LICENSE && \
    /tools/bin/python -m pip wheel --no-deps --no-build-isolation --wheel-dir /empty .

FROM tools AS wheel
COPY . .
RUN cp /pyproject.toml . && \
    /tools/bin/python -m pip wheel --no-deps --no-build-isolation --wheel-dir /wheel .

# ---- one environment for each target: what it needs first, Amiss last, for that changes most

FROM tools AS serve-environment
RUN --mount=type=secret,id=pip_conf,target=/etc/pip.conf \
    --mount=type=cache,target=/root/.cache/pip \
    $PIP install -c /constraints.txt "$(echo /empty/*.whl)[serve]" dumb-init==1.2.5.post1
COPY --from=wheel /wheel /wheel
RUN $PIP install --no-index --no-deps --force-reinstall /wheel/*.whl && $PIP check

FROM tools AS torchserve-environment
RUN --mount=type=secret,id=pip_conf,target=/etc/pip.conf \
    --mount=type=cache,target=/root/.cache/pip \
    $PIP install -c /constraints.txt "$(echo /empty/*.whl)[torchserve]" dumb-init==1.2.5.post1
COPY --from=wheel /wheel /wheel
RUN $PIP install --no-index --no-deps --force-reinstall /wheel/*.whl && $PIP check

FROM tools AS train-environment
RUN --mount=type=secret,id=pip_conf,target=/etc/pip.conf \
    --mount=type=cache,target=/root/.cache/pip \
    $PIP install -c /constraints.txt "$(echo /empty/*.whl)[train]" dumb-init==1.2.5.post1
COPY --from=wheel /wheel /wheel
RUN $PIP install --no-index --no-deps --force-reinstall /wheel/*.whl && $PIP check

# ---- what runs: the base, one environment, one user

FROM ${BASE} AS runtime
# The user is 1000, or any other of group 0. Official Python images come without the bytecode of
# the standard library, and a root that is read-only never gets it.
RUN useradd --uid 1000 --gid 0 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin amiss && \
    install -d -o 1000 -g 0 -m 2775 /models /state /work && \
    python3 -m compileall -q -x 'test|idlelib|lib2to3|site-packages|dist-packages' \
      "$(python3 -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')"
# USER: PyTorch asks for a name, and a random uid has none.
ENV PATH=/opt/amiss/bin:$PATH HOME=/tmp USER=amiss \
    PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
STOPSIGNAL SIGTERM
USER 1000:0
# A first process must pass signals on, those that Python has no handler for included, and reap.
ENTRYPOINT ["dumb-init", "--single-child", "--", "amiss"]
ARG VERSION="" REVISION="" SOURCE=""
LABEL org.opencontainers.image.title="amiss" \
      org.opencontainers.image.description="Trains and serves anomaly detectors" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION" \
      org.opencontainers.image.source="$SOURCE"

FROM runtime AS train
ENV MPLCONFIGDIR=/tmp/matplotlib NUMBA_CACHE_DIR=/tmp/numba
WORKDIR /work
CMD ["--help"]
COPY --from=train-environment /opt/amiss /opt/amiss

FROM runtime AS service
# Beyond loopback: without AMISS_TOKEN (or --insecure) it refuses to start.
ENV AMISS_HOST=0.0.0.0 AMISS_MODELS=/models
WORKDIR /state
EXPOSE 8000 8001 8002
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python3", "-m", "amiss_serving.probe"]

FROM service AS torchserve
CMD ["serve", "--runtime", "torchserve"]
COPY --from=torchserve-environment /opt/amiss /opt/amiss

# Last, so that it is what is built when no target is named.
FROM service AS serve
CMD ["serve"]
COPY --from=serve-environment /opt/amiss /opt/amiss
