# syntax=docker/dockerfile:1
# The node as an image without shell, package manager or root:      docker build -t staydown .
# On Debian with ffmpeg, for companies that compare videos:         docker build --build-arg BASE=with-ffmpeg -t staydown:ffmpeg .

# The same Debian everywhere, so that the program finds the C library that it was linked with.
ARG DEBIAN=bookworm
ARG RUST=1.95
ARG BASE=scratch

FROM rust:${RUST}-slim-${DEBIAN} AS build
WORKDIR /staydown
COPY . .
# The build sees no history, so by hand: --build-arg SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
ARG SOURCE_DATE_EPOCH
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/staydown/target,sharing=locked \
    . deploy/reproducible.env \
 && cargo build --release --locked --bin staydown \
 && strip -o /usr/bin/staydown target/release/staydown
# Everything of the final image: the program, what it is linked with, and the name of its user.
RUN deploy/image-root.sh /usr/bin/staydown /image

FROM debian:${DEBIAN}-slim AS with-ffmpeg
RUN apt-get update \
 && apt-get install -y --no-install-recommends ffmpeg \
 && rm -rf /var/lib/apt/lists/*

FROM ${BASE} AS node
LABEL org.opencontainers.image.title="staydown" \
      org.opencontainers.image.description="One member's node in a forum that shares hashes of terrorist content" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /image /
# By number, so that a cluster that forbids root can see that it is none.
USER 10001:10001
ENV STAYDOWN_DATA=/var/lib/staydown STAYDOWN_LOG_FORMAT=json HOME=/var/lib/staydown PATH=/usr/bin
WORKDIR /var/lib/staydown
# Keys, journal, replica. /exchange, beside it, is for the files that people hand to each other.
VOLUME ["/var/lib/staydown"]
# Peers; our own people, on loopback until web.listen says otherwise.
EXPOSE 7700 7701
STOPSIGNAL SIGTERM
# Whether it answers, not whether all is well: a peer that is away must not get this node restarted (for that: staydown
# check). A long list takes minutes to read at a start.
HEALTHCHECK --interval=30s --timeout=10s --start-period=5m --retries=3 CMD ["/usr/bin/staydown", "status"]
ENTRYPOINT ["/usr/bin/staydown"]
CMD ["run"]
