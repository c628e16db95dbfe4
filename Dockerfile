# From the wheel that `make wheel` builds:  make wheel && docker build -t emix .
#
# The base image is named by its tag, which its owners move. Pin it by the digest that you checked:
#   docker build --build-arg BASE=python:3.12-slim@sha256:... -t emix .
# (`docker buildx imagetools inspect python:3.12-slim` shows the present one). All packages are held
# against the digests of deploy/requirements.txt.
ARG BASE=python:3.12-slim
FROM ${BASE}
RUN useradd --system --create-home --home-dir /var/lib/emix emix
COPY deploy/requirements.txt dist/emix-*.whl /tmp/
RUN pip install --no-cache-dir --require-hashes --no-deps -r /tmp/requirements.txt \
    && pip install --no-cache-dir --no-deps /tmp/emix-*.whl \
    && rm /tmp/requirements.txt /tmp/emix-*.whl
USER emix
ENV EMIX_HOME=/var/lib/emix/node
VOLUME /var/lib/emix
EXPOSE 7410 7411
ENTRYPOINT ["emix"]
CMD ["serve"]
