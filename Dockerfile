# The image holds one static program and no shell.
FROM --platform=$BUILDPLATFORM golang:1.26-bookworm AS build
WORKDIR /src
COPY . .
ARG TARGETOS TARGETARCH VERSION=dev REVISION=
RUN --mount=type=cache,target=/go/pkg/mod \
    --mount=type=cache,target=/root/.cache/go-build \
    CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH \
    go build -trimpath -ldflags "-s -w -X main.version=$VERSION -X main.revision=$REVISION" -o /parley ./cmd/parley

FROM gcr.io/distroless/static-debian12:nonroot
COPY --from=build /parley /parley
EXPOSE 8765
# Alive, not ready: a node whose Redis is away mends itself, and its clients stay.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s CMD ["/parley", "health"]
ENTRYPOINT ["/parley"]
ARG VERSION=dev REVISION=
LABEL org.opencontainers.image.title="Parley" \
      org.opencontainers.image.description="Chat over WebSockets, on many nodes that share their rooms through Redis" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION"
