# The inbox of development (dev/inbox/), with the locked versions of the few libraries that it needs.

FROM python:3.12-slim
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONUNBUFFERED=1
COPY requirements/development.txt /tmp/development.txt
# The lock's names and versions alone: with its checksums, pip would want to be told of each package by itself.
RUN grep -oE '^[A-Za-z0-9._-]+==[^ ;]+' /tmp/development.txt >/tmp/versions.txt \
    && pip install --constraint /tmp/versions.txt aiohttp aiosmtpd jinja2
# The worker's user, as the worker writes push messages where the inbox reads them.
RUN useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin inkstream \
    && install --directory --owner inkstream /var/lib/inbox
COPY dev/__init__.py /app/dev/
COPY dev/inbox /app/dev/inbox
WORKDIR /app
USER inkstream
VOLUME /var/lib/inbox
EXPOSE 16025 16026
ENTRYPOINT ["python", "-m", "dev.inbox", "/var/lib/inbox", "--host", "0.0.0.0", "--smtp-port", "16025", "--port", "16026"]
