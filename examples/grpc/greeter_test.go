package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/hashicorp/consul/api"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"sluice/examples/grpc/helloworld"
	"sluice/test/consultest"
	"sluice/test/long"
	"sluice/test/sluicetest"
	"sluice/test/subprocess"
	"sluice/test/verify"
)

// envRequired makes the test fail, instead of being skipped, where Python has no gRPC.
const envRequired = "SLUICE_REQUIRE_GRPCIO"

// python returns an interpreter that has the packages which greeter.py needs. Debian's
// packages belong to /usr/bin/python3, which need not be the first on PATH.
func python(t *testing.T) string {
	t.Helper()
	for _, program := range []string{"python3", "/usr/bin/python3"} {
		if exec.Command(program, "-c", "import google.protobuf, grpc").Run() == nil {
			return program
		}
	}
	const message = "no Python with grpc and protobuf; on Debian: apt-get install python3-grpcio python3-protobuf"
	verify.Require(t, os.Getenv(envRequired) == "", "%v", message)
	t.Skip(message)
	return ""
}

// Greeters start, are replaced one by one, crash and stop, with sluice.yaml. As long as
// there is one, no call fails, but those that a crash interrupts.
func TestGreeters(t *testing.T) {
	long.Test(t)
	t.Run("Python", func(t *testing.T) {
		t.Parallel()
		program := python(t)
		testGreeters(t, func(port string) subprocess.Options {
			return subprocess.Options{Program: program, Args: []string{"greeter.py", port, "600"}, Env: []string{"PYTHONDONTWRITEBYTECODE=1"}}
		})
	})
	t.Run("Go", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		verify.NoError(t, sluicetest.Build(t.Context(), dir, "sluice/examples/grpc"))
		testGreeters(t, func(port string) subprocess.Options {
			return subprocess.Options{Program: filepath.Join(dir, "grpc"), Args: []string{"-port", port, "-goodbye", "10m"}}
		})
	})
}

func testGreeters(t *testing.T, program func(port string) subprocess.Options) {
	agent := consultest.Start(t, consultest.Options{})
	s := &stage{
		t: t, program: program, agent: agent,
		sluice: sluicetest.Run(t, "--config", "sluice.yaml", "--consul", agent.URL()),
	}
	client := s.dial()
	s.expectNone(client)

	var ids []string
	for range 3 {
		ids = append(ids, s.start())
	}
	for _, id := range ids {
		s.awaitUse(id)
	}
	load := startLoad(client)
	for i, old := range ids {
		ids[i] = s.start()
		s.awaitUse(ids[i])
		consultest.Await(t, ids[i]+" answers", func() bool { return load.count().byName[ids[i]] > 0 })
		s.terminate(old)
		consultest.Await(t, old+" is gone", func() bool { return s.peer(old).ID == "" })
		s.stop(old)
	}
	count := load.stop()
	t.Logf("%d calls: %v", count.calls, count.byName)
	verify.That(t, count.failed <= 0, "%d of %d calls failed: %q", count.failed, count.calls, count.failures)

	s.crash(ids[0])
	load = startLoad(client)
	consultest.Await(t, "calls after the crash", func() bool { return load.count().calls >= 100 })
	count = load.stop()
	verify.That(t, count.failed <= 0 && count.byName[ids[0]] <= 0, "after the crash of %s: %+v", ids[0], count)
	for _, id := range ids[1:] {
		s.terminate(id)
		s.stop(id)
	}
	s.expectNone(client) // the last one is on probation until a connection fails
}

// stage is what a test runs.
type stage struct {
	t        *testing.T
	program  func(port string) subprocess.Options
	agent    *consultest.Agent
	sluice   *sluicetest.Sluice
	greeters map[string]*subprocess.Process // by their id
}

// dial returns a client of sluice, without retries of its own.
func (s *stage) dial() helloworld.GreeterClient {
	s.t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+strings.TrimPrefix(s.sluice.URL(), "http://"),
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDisableRetry())
	verify.NoError(s.t, err)
	s.t.Cleanup(func() { conn.Close() })
	return helloworld.NewGreeterClient(conn)
}

// start runs a greeter.
func (s *stage) start() (id string) {
	s.t.Helper()
	port := strconv.Itoa(consultest.ReservePort(s.t))
	id = "greeter-" + port
	var log bytes.Buffer
	options := s.program(port)
	options.Env = append(options.Env, "CONSUL_HTTP_ADDR="+s.agent.HTTPAddress())
	options.Output = &log
	p := verify.Result(subprocess.Start(options)).Must(s.t)
	if s.greeters == nil {
		s.greeters = make(map[string]*subprocess.Process)
	}
	s.greeters[id] = p
	s.t.Cleanup(func() {
		err := p.Kill()
		verify.That(s.t, err == nil, "kill %s: %v", id, err)
		if s.t.Failed() {
			s.t.Logf("%s:\n%s", id, log.String())
		}
	})
	return id
}

// awaitUse waits until sluice uses a greeter.
func (s *stage) awaitUse(id string) {
	s.t.Helper()
	consultest.Await(s.t, id+" passes its check in Consul", func() bool { return s.verdict(id) == api.HealthPassing })
	consultest.AwaitPromptly(s.t, id+" is up", func() bool { return s.peer(id).State == "up" })
}

// terminate sends SIGTERM to a greeter, and waits until it has deregistered.
func (s *stage) terminate(id string) {
	s.t.Helper()
	process, err := os.FindProcess(s.greeters[id].PID())
	if err == nil {
		err = process.Signal(syscall.SIGTERM)
	}
	verify.NoError(s.t, err)
	consultest.Await(s.t, id+" has deregistered", func() bool {
		services, err := s.agent.Client().Agent().Services()
		return err == nil && services[id] == nil
	})
}

// stop ends a greeter that has deregistered by a second SIGTERM.
func (s *stage) stop(id string) {
	s.t.Helper()
	verify.NoError(s.t, s.greeters[id].Stop())
	err := s.greeters[id].Err()
	verify.That(s.t, err == nil, "%s ended with %v", id, err)
}

// crash kills a greeter, and waits until sluice does not use it. It stays registered, until
// Consul removes it.
func (s *stage) crash(id string) {
	s.t.Helper()
	verify.NoError(s.t, s.greeters[id].Kill())
	consultest.Await(s.t, id+" fails its check in Consul", func() bool { return s.verdict(id) == api.HealthCritical })
	consultest.AwaitPromptly(s.t, id+" is not used", func() bool { p := s.peer(id); return p.Status == api.HealthCritical && p.State != "up" })
}

// verdict returns the status of a greeter in Consul; "" if it is not known.
func (s *stage) verdict(id string) string {
	entries, _, err := s.agent.Client().Health().Service(service, "", false, nil)
	if err != nil {
		return ""
	}
	for _, e := range entries {
		if e.Service.ID == id {
			return e.Checks.AggregatedStatus()
		}
	}
	return ""
}

// peer returns a peer of sluice; the zero value if there is none.
func (s *stage) peer(id string) (found sluicetest.Peer) {
	s.t.Helper()
	peers := verify.Result(s.sluice.Peers(s.t.Context())).Must(s.t)
	for _, p := range peers {
		if p.ID == id {
			found = p
		}
	}
	return found
}

// expectNone checks what a call gets while there is no greeter.
func (s *stage) expectNone(client helloworld.GreeterClient) {
	s.t.Helper()
	var header, trailer metadata.MD
	_, err := client.SayHello(s.t.Context(), &helloworld.HelloRequest{}, grpc.Header(&header), grpc.Trailer(&trailer))
	reason := append(header.Get("x-sluice-reason"), trailer.Get("x-sluice-reason")...)
	verify.That(s.t, status.Code(err) == codes.Unavailable && len(reason) == 1, "without a greeter: %v, reason %q; want Unavailable with a reason", err, reason)
}

// sender returns the name of the greeter that sent a reply.
func sender(reply *helloworld.HelloReply) (string, error) {
	name, ok := strings.CutPrefix(reply.GetMessage(), "Hello you from ")
	if !ok {
		return "", fmt.Errorf("unexpected reply %q", reply.GetMessage())
	}
	return name, nil
}

// hello makes a unary call.
func hello(ctx context.Context, client helloworld.GreeterClient) (name string, err error) {
	reply, err := client.SayHello(ctx, &helloworld.HelloRequest{Name: "you"})
	if err != nil {
		return "", err
	}
	return sender(reply)
}

// hellos makes a call with a stream of five replies.
func hellos(ctx context.Context, client helloworld.GreeterClient) (name string, err error) {
	stream, err := client.SayHelloStreamReply(ctx, &helloworld.HelloRequest{Name: "you"})
	if err != nil {
		return "", err
	}
	replies := 0
	for {
		reply, err := stream.Recv()
		switch {
		case err == io.EOF && replies == 5:
			return name, nil
		case err == io.EOF:
			return "", fmt.Errorf("the stream has %d replies", replies)
		case err != nil:
			return "", fmt.Errorf("after %d replies: %w", replies, err)
		}
		if name, err = sender(reply); err != nil {
			return "", err
		}
		replies++
	}
}
