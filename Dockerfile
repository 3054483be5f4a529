# Build, then run as nobody on a root that may be read-only. `docker run --read-only --tmpfs /tmp -v ./conf:/etc/sluice:ro sluice`
FROM debian:12-slim AS build
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates curl gcc g++ cmake make libc6-dev \
    && rm -rf /var/lib/apt/lists/*
# A Rust toolchain of 1.95 or later on the PATH: the distribution's own is older.
COPY --from=rust:1.95-slim-bookworm /usr/local/rustup /usr/local/rustup
COPY --from=rust:1.95-slim-bookworm /usr/local/cargo /usr/local/cargo
ENV PATH=/usr/local/cargo/bin:$PATH RUSTUP_HOME=/usr/local/rustup CARGO_HOME=/usr/local/cargo
WORKDIR /src
COPY . .
# Guided by a profile (docs/decisions/0060): two builds, and the benches' jobs between them.
RUN make optimized

FROM debian:12-slim
COPY --from=build /src/target/optimized/sluice /usr/local/bin/sluice
USER 65534:65534
EXPOSE 8080
# No shell between the signals and the gateway: SIGTERM drains, SIGHUP reloads.
ENTRYPOINT ["/usr/local/bin/sluice"]
CMD ["run", "/etc/sluice/sluice.yaml"]
