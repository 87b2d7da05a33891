package clients

import (
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"

	"sluice/test/verify"
)

const proto = "../../examples/grpc/helloworld.proto"

func testGRPCurl(t *testing.T, s *stage) {
	program := tool(t, "grpcurl", "github.com/fullstorydev/grpcurl")
	grpcurl := func(args ...string) outcome {
		t.Helper()
		return run(t, "", program, append([]string{"-cacert", s.ca}, args...)...)
	}
	// By reflection, a stream in both directions.
	for _, call := range []struct {
		args []string
		want string
	}{
		{[]string{"list"}, "helloworld.Greeter\n"}, {[]string{"describe", "helloworld.HelloRequest"}, "string name = 1"},
		{[]string{"grpc.health.v1.Health/Check"}, `"SERVING"`},
	} {
		o := grpcurl(append([]string{s.address}, call.args...)...)
		verify.That(t, o.status == 0 && strings.Contains(o.stdout, call.want), "%q: %+v", call.args, o)
	}
	for source, args := range map[string][]string{"reflection": nil, "file": {"-import-path", "../..", "-proto", strings.TrimPrefix(proto, "../../")}} {
		for _, call := range []struct{ method, want string }{
			{"SayHello", "Hello you"}, {"SayHelloStreamReply", "Hello y, Hello o, Hello u"},
		} {
			o := grpcurl(append(args, "-d", `{"name": "you"}`, s.address, "helloworld.Greeter/"+call.method)...)
			got := messages(t, o.stdout)
			verify.That(t, o.status == 0 && got == call.want, "%s, %s: got %q, want %q: %+v", source, call.method, got, call.want, o)
		}
	}
	const invalidArgument = 64 + 3 // grpcurl ends with 64 and the status
	o := grpcurl(s.address, "helloworld.Greeter/SayHello")
	verify.That(t, o.status == invalidArgument && strings.Contains(o.stderr, "nobody to greet"), "a call that fails: %+v", o)
}

// messages returns the replies in an output.
func messages(t *testing.T, output string) string {
	t.Helper()
	var all []string
	for decoder := json.NewDecoder(strings.NewReader(output)); ; {
		var reply struct{ Message string }
		err := decoder.Decode(&reply)
		if errors.Is(err, io.EOF) {
			return strings.Join(all, ", ")
		}
		verify.Require(t, err == nil, "%v in:\n%s", err, output)
		all = append(all, reply.Message)
	}
}
