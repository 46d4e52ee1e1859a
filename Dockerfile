# The worker and its commands (`inkstream …`), with locked dependencies, as an unprivileged user.

FROM python:3.12-slim AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/inkstream
# The lock first: it changes less often than the program, so its layer is cached.
COPY requirements/runtime.txt /tmp/runtime.txt
RUN /opt/inkstream/bin/pip install --require-hashes --requirement /tmp/runtime.txt
COPY . /app
# Editable, as in development: the program runs from its root, next to topics.yaml and migrations/.
RUN /opt/inkstream/bin/pip install --no-deps --editable /app \
    && /opt/inkstream/bin/python -m compileall -q /app

FROM python:3.12-slim
RUN useradd --system --uid 10001 --home-dir /app --shell /usr/sbin/nologin inkstream
COPY --from=build /opt/inkstream /opt/inkstream
COPY --from=build /app /app
ENV PATH=/opt/inkstream/bin:$PATH PYTHONUNBUFFERED=1 INKSTREAM_ENVIRONMENT=production INKSTREAM_WEB_HOST=0.0.0.0 \
    INKSTREAM_LOG_FORMAT=json
WORKDIR /app
USER inkstream
EXPOSE 16066
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-c", "from os import environ as e; from urllib.request import urlopen; from runtime.web_address import url; urlopen(url(e['INKSTREAM_WEB_HOST'], e.get('INKSTREAM_WEB_PORT', '16066')) + '/healthz', timeout=4)"]
# docker build --build-arg VERSION=0.2.0 --build-arg REVISION="$(git rev-parse HEAD)" …
ARG VERSION=development
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Inkstream" \
    org.opencontainers.image.description="Event-driven stream processing for a blog platform" \
    org.opencontainers.image.version=$VERSION \
    org.opencontainers.image.revision=$REVISION
ENTRYPOINT ["inkstream"]
CMD ["worker"]
