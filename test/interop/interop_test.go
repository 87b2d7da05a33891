package interop

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/interop"
	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/orca"

	"sluice/test/sluicetest"
	"sluice/test/verify"
)

// The cases are the ones of grpc-go's interop_test.sh that need no credentials and no access to
// grpc-go's internal packages. A case that fails ends the process.
func TestInterop(t *testing.T) {
	conn := verify.Result(grpc.NewClient("passthrough:///"+startSluice(t, startServer(t), startServer(t)),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultServiceConfig(`{"loadBalancingConfig": [{"test_backend_metrics_load_balancer": {}}]}`))).Must(t)
	defer conn.Close()
	client := grpc_testing.NewTestServiceClient(conn)
	call := func(do func(context.Context, grpc_testing.TestServiceClient, ...grpc.CallOption)) func(context.Context) {
		return func(ctx context.Context) { do(ctx, client) }
	}
	for _, c := range []struct {
		name string
		run  func(context.Context)
	}{
		{"empty_unary", call(interop.DoEmptyUnaryCall)},
		{"large_unary", call(interop.DoLargeUnaryCall)},
		{"client_streaming", call(interop.DoClientStreaming)},
		{"server_streaming", call(interop.DoServerStreaming)},
		{"ping_pong", call(interop.DoPingPong)},
		{"empty_stream", call(interop.DoEmptyStream)},
		{"timeout_on_sleeping_server", call(interop.DoTimeoutOnSleepingServer)},
		{"cancel_after_begin", call(interop.DoCancelAfterBegin)},
		{"cancel_after_first_response", call(interop.DoCancelAfterFirstResponse)},
		{"status_code_and_message", call(interop.DoStatusCodeAndMessage)},
		{"special_status_message", call(interop.DoSpecialStatusMessage)},
		{"custom_metadata", call(interop.DoCustomMetadata)},
		{"unimplemented_method", func(context.Context) { interop.DoUnimplementedMethod(t.Context(), conn) }},
		{"unimplemented_service", func(ctx context.Context) {
			interop.DoUnimplementedService(ctx, grpc_testing.NewUnimplementedServiceClient(conn))
		}},
		{"orca_per_rpc", func(ctx context.Context) { interop.DoORCAPerRPCTest(ctx, client) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			fmt.Println("interop:", c.name) // known even if the process ends
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			defer cancel()
			c.run(ctx)
		})
	}
}

// startServer runs the server of the interoperability cases.
func startServer(t *testing.T) (address string) {
	t.Helper()
	l := verify.Result(net.Listen("tcp", sluicetest.Any)).Must(t)
	server := grpc.NewServer(orca.CallMetricsServerOption(nil))
	grpc_testing.RegisterTestServiceServer(server, interop.NewTestServer())
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	t.Cleanup(func() {
		server.Stop()
		verify.Succeeds(t, <-served)
	})
	return l.Addr().String()
}

// startSluice builds and runs sluice in front of peers.
func startSluice(t *testing.T, peers ...string) (address string) {
	t.Helper()
	dir := t.TempDir()
	program, file, log := filepath.Join(dir, "sluice"), filepath.Join(dir, "sluice.yaml"), filepath.Join(dir, "sluice.log")
	build := exec.Command("go", "build", "-o", program, ".")
	build.Dir = "../.."
	out, err := build.CombinedOutput()
	verify.Require(t, err == nil, "go build: %v\n%s", err, out)
	text := fmt.Sprintf("access_log: { path: %q }\nshutdown: { delay: 0s }\nservices:\n  test: { peers: [%s], upstream: { protocol: h2c } }\nroutes: [{ service: test }]\n",
		filepath.Join(dir, "access.log"), strings.Join(peers, ", "))
	verify.NoError(t, os.WriteFile(file, []byte(text), 0o600))
	s := verify.Result(sluicetest.Start(t.Context(), sluicetest.Options{
		Program: program, Listen: sluicetest.Any, Admin: sluicetest.Any, Args: []string{"--config", file}, Log: log,
	})).Must(t)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("end of sluice's log:\n%s", s.LogTail(20))
		}
		verify.Succeeds(t, s.Stop())
	})
	return strings.TrimPrefix(s.URL(), "http://")
}
