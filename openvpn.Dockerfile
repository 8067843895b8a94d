# An image with the same programs, without a container engine:
# cargo run -p e2e -- image --servers --output vpn-operator-openvpn.tar
FROM rust:1.89-bookworm AS build
WORKDIR /source
COPY . .
RUN cargo run --locked -p e2e -- image --root /image

FROM debian:bookworm-slim
LABEL org.opencontainers.image.title="vpn-operator-openvpn" \
      org.opencontainers.image.version="2.0.0" \
      org.opencontainers.image.source="https://github.com/thavlik/vpn-operator"
RUN apt-get update \
    && apt-get install --yes --no-install-recommends iproute2 iptables openvpn \
    && rm -rf /var/lib/apt/lists/*
COPY --from=build /image/licenses/ /licenses/
COPY --from=build /image/vpn-operator /usr/local/bin/vpn-operator
COPY --chmod=755 operator/setup/ /etc/openvpn/setup/
ENTRYPOINT ["/usr/local/bin/vpn-operator"]
