# The same image without a container engine: cargo run -p e2e -- image --output vpn-operator.tar
FROM rust:1.89-bookworm AS build
WORKDIR /source
COPY . .
RUN cargo run --locked -p e2e -- image --root /image

FROM scratch
LABEL org.opencontainers.image.title="vpn-operator" \
      org.opencontainers.image.version="2.0.0" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0" \
      org.opencontainers.image.source="https://github.com/thavlik/vpn-operator"
COPY --from=build /image/ /
USER 65532:65532
ENTRYPOINT ["/vpn-operator"]
