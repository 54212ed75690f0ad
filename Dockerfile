# spillq alone on nothing: a static binary, no shell, no libc, no user but its own.
#
#   docker build -t spillq .
#
# For exec processors build your own image on a base that has their interpreter:
#
#   FROM python:3-slim
#   COPY --from=spillq /usr/bin/spillq /usr/bin/spillq

# Rust on musl builds static binaries by default. C is for zstd and the allocator.
FROM rust:1.95-alpine AS build
RUN apk add --no-cache build-base
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --profile dist --locked --bin spillq --features kafka \
    && cp target/dist/spillq /usr/bin/spillq \
    && mkdir -p /empty/var/lib/spillq && chmod 0700 /empty/var/lib/spillq

FROM scratch
COPY --from=build /usr/bin/spillq /usr/bin/spillq
# A new volume takes owner and mode from the folder that it covers.
COPY --from=build --chown=10001:10001 /empty/var/lib/spillq /var/lib/spillq
USER 10001:10001
ENV SPILLQ_DATA_DIR=/var/lib/spillq
VOLUME /var/lib/spillq
# Opening may take a while after a crash on a slow disk: until then it is starting, not unhealthy.
HEALTHCHECK --interval=10s --timeout=10s --start-period=60s --retries=3 \
    CMD ["/usr/bin/spillq", "status", "--running"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/bin/spillq"]
CMD ["run", "--config", "/etc/spillq/spillq.toml"]
