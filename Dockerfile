# Orbweb as a container: one binary, no shell needed, not root.
#
#   docker build -t orbweb .
#   docker run --rm -p 8000:8000 orbweb
#
# docs/compose.yaml starts three of them as one cluster.

FROM rust:1.95-slim-bookworm AS build
WORKDIR /src
COPY . .
# Function names stay for backtraces; line tables would be most of the image.
ENV CARGO_PROFILE_DIST_DEBUG=0
RUN cargo build --profile dist --locked --package orbweb --bin orbweb

FROM debian:bookworm-slim
COPY --from=build /src/target/dist/orbweb /usr/local/bin/orbweb
USER 10001:10001
# Clients and HTTP; peers speak QUIC on the UDP port once a secret is given, and notice dead processes
# sooner by TCP on the same number.
ENV ORBWEB_LISTEN=0.0.0.0:8000
EXPOSE 8000/tcp 7400/udp 7400/tcp
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=5s --timeout=3s --start-period=10s --retries=3 \
    CMD ["orbweb", "status", "--ready"]
ENTRYPOINT ["orbweb"]
CMD ["serve"]
