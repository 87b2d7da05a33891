package clients

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/reflection"
	"google.golang.org/grpc/status"

	"sluice/examples/grpc/helloworld"
	"sluice/test/consultest"
	"sluice/test/sluicetest"
	"sluice/test/verify"
)

// stage is a sluice with a listener with TLS, peers with HTTP/1.1 for all paths but those of
// gRPC, and peers with gRPC.
type stage struct {
	address string // of the listener, for clients without a certificate; also by HTTP/3
	mutual  string // of another one, for clients with a certificate
	ca      string // file of the authority of all certificates
	cert    string // file of the certificate of the listener
	key     string // file of its key
	client  struct{ cert, key string }
	program string // file of sluice
	log     string // file of the access log
}

const configuration = `
access_log: { path: %[1]q }
shutdown: { delay: 0s }
listeners:
  - { name: web, address: "127.0.0.1:%[9]d", http3: true, tls: { certificates: [{ cert: %[2]q, key: %[3]q }] } }
  - { name: mutual, address: "127.0.0.1:0", tls: { certificates: [{ cert: %[2]q, key: %[3]q }], client_ca: %[4]q } }
services:
  site: { peers: [%[5]q, %[6]q] }
  greeter: { peers: [%[7]q, %[8]q], upstream: { protocol: h2c } }
routes:
  - { path: /helloworld.Greeter, service: greeter }
  - { path: /grpc.health.v1.Health, service: greeter }
  - { path: /grpc.reflection.v1.ServerReflection, service: greeter }
  - { path: /grpc.reflection.v1alpha.ServerReflection, service: greeter }
  - { service: site }
`

// start runs all of the stage until the test ends.
func start(t *testing.T) *stage {
	t.Helper()
	authority := consultest.NewAuthority(t, "Test CA")
	s := &stage{ca: authority.File}
	cert, key := authority.Issue("site", "127.0.0.1", "site.example")
	s.cert, s.key = cert, key
	s.client.cert, s.client.key = authority.Issue("client", "client.example")

	dir := t.TempDir()
	s.program, s.log = filepath.Join(dir, "sluice"), filepath.Join(dir, "access.log")
	file, log := filepath.Join(dir, "sluice.yaml"), filepath.Join(dir, "sluice.log")
	build := exec.Command("go", "build", "-o", s.program, ".")
	build.Dir = "../.."
	out, err := build.CombinedOutput()
	verify.Require(t, err == nil, "go build: %v\n%s", err, out)
	text := fmt.Sprintf(configuration, s.log, cert, key, s.ca,
		startSite(t), startSite(t), startGreeter(t), startGreeter(t), consultest.ReservePort(t))
	verify.NoError(t, os.WriteFile(file, []byte(text), 0o600))
	sluice := verify.Result(sluicetest.Start(t.Context(), sluicetest.Options{
		Program: s.program, Admin: sluicetest.Any, Args: []string{"--config", file}, Log: log,
	})).Must(t)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("end of sluice's log:\n%s", sluice.LogTail(20))
		}
		verify.Succeeds(t, sluice.Stop())
	})
	s.address, s.mutual = sluice.Address("web"), sluice.Address("mutual")
	return s
}

// url returns the URL of a path.
func (s *stage) url(path string) string { return "https://" + s.address + path }

// logged returns the protocols of the requests for a path in the access log.
func (s *stage) logged(t *testing.T, path string) (protocols []string) {
	t.Helper()
	for line := range bytes.Lines(verify.Result(os.ReadFile(s.log)).Must(t)) {
		var entry struct{ Target, Proto string }
		if json.Unmarshal(line, &entry) == nil && entry.Target == path {
			protocols = append(protocols, entry.Proto)
		}
	}
	return protocols
}

// startSite runs a peer with HTTP/1.1.
func startSite(t *testing.T) (address string) {
	t.Helper()
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		fmt.Fprint(w, "<!doctype html><title>Site</title><script src=/script.js></script>")
	})
	mux.HandleFunc("GET /script.js", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/javascript")
		fmt.Fprint(w, "globalThis.loaded = true")
	})
	mux.HandleFunc("GET /favicon.ico", http.NotFound)
	mux.HandleFunc("GET /hello", func(w http.ResponseWriter, r *http.Request) { fmt.Fprintln(w, "Hello") })
	mux.HandleFunc("GET /identity", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintln(w, r.Header.Get("X-Forwarded-Client-Cert"))
	})
	mux.HandleFunc("GET /image", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "image/svg+xml")
		fmt.Fprint(w, `<svg xmlns="http://www.w3.org/2000/svg" width="7" height="7"/>`)
	})
	mux.HandleFunc("/echo", echo)
	mux.HandleFunc("/echo/", echo)
	mux.HandleFunc("GET /trailer", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Trailer", "X-Sum")
		fmt.Fprintln(w, "te:", r.Header.Get("TE"))
		w.Header().Set("X-Sum", "7")
	})
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	return server.Listener.Addr().String()
}

func echo(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body) // first: net/http loses what is read after the first write
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	w.Write(body)
}

// startGreeter runs a peer with gRPC, health and reflection.
func startGreeter(t *testing.T) (address string) {
	t.Helper()
	l := verify.Result(net.Listen("tcp", sluicetest.Any)).Must(t)
	server := grpc.NewServer()
	helloworld.RegisterGreeterServer(server, greeter{})
	grpc_health_v1.RegisterHealthServer(server, health.NewServer())
	reflection.Register(server)
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	t.Cleanup(func() {
		server.Stop()
		verify.Succeeds(t, <-served)
	})
	return l.Addr().String()
}

// greeter greets who has a name, in a stream once for each letter of it.
type greeter struct {
	helloworld.UnimplementedGreeterServer
}

func (greeter) SayHello(_ context.Context, in *helloworld.HelloRequest) (*helloworld.HelloReply, error) {
	if in.Name == "" {
		return nil, status.Error(codes.InvalidArgument, "nobody to greet")
	}
	return &helloworld.HelloReply{Message: "Hello " + in.Name}, nil
}

func (greeter) SayHelloStreamReply(in *helloworld.HelloRequest, stream grpc.ServerStreamingServer[helloworld.HelloReply]) error {
	for letter := range strings.SplitSeq(in.Name, "") {
		if err := stream.Send(&helloworld.HelloReply{Message: "Hello " + letter}); err != nil {
			return err
		}
	}
	return nil
}
