# From the wheel that `make wheel` builds:  make wheel && docker build -t emix .
FROM python:3.12-slim
RUN useradd --system --create-home --home-dir /var/lib/emix emix
COPY dist/emix-*.whl /tmp/
RUN pip install --no-cache-dir /tmp/emix-*.whl && rm /tmp/emix-*.whl
USER emix
ENV EMIX_HOME=/var/lib/emix/node
VOLUME /var/lib/emix
EXPOSE 7410 7411
ENTRYPOINT ["emix"]
CMD ["serve"]
