# Image of `sockeye serve`: docker build -t sockeye . && docker run -p 8080:8080 sockeye
# Settings come from SOCKEYE_ variables, or from a file: -v ./sockeye.toml:/etc/sockeye.toml -e SOCKEYE_CONFIG=/etc/sockeye.toml
# Without a file, everything is open to everyone who can reach the port.
# The log of histories is in /var/lib/sockeye: -v sockeye:/var/lib/sockeye keeps it. With Redis or NATS: -e SOCKEYE_DATA= -e SOCKEYE_ENGINE=...
FROM rust:1.95-slim-bookworm AS build
WORKDIR /src
COPY . .
RUN cargo build --release --locked -p sockeye-cli

FROM debian:bookworm-slim
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --create-home --home-dir /var/lib/sockeye sockeye
COPY --from=build /src/target/release/sockeye /usr/local/bin/sockeye
USER sockeye
VOLUME /var/lib/sockeye
ENV SOCKEYE_LISTEN=0.0.0.0:8080 SOCKEYE_DATA=/var/lib/sockeye
EXPOSE 8080
# `docker stop` waits 10 s by default, so the drain is shorter.
CMD ["sockeye", "serve", "--drain", "8s"]
