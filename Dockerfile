# docker build -t sluice .
# docker run --rm --network host sluice run --service star

FROM golang:1.26 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
# With .git, of which the program has its version.
COPY . .
RUN CGO_ENABLED=0 go build -trimpath -tags grpcnotrace -ldflags='-s -w' -o /sluice .

# Nothing but the binary and the CA certificates that https:// to Consul needs.
FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /sluice /sluice
USER 65534:65534
EXPOSE 8080
ENTRYPOINT ["/sluice"]
CMD ["help"]
