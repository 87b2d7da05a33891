package clients

import (
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"
)

const proto = "../../examples/grpc/helloworld.proto"

func testGRPCurl(t *testing.T, s *stage) {
	program := tool(t, "grpcurl", "github.com/fullstorydev/grpcurl")
	grpcurl := func(args ...string) outcome {
		t.Helper()
		return run(t, "", program, append([]string{"-cacert", s.ca}, args...)...)
	}
	// By reflection, a stream in both directions.
	if o := grpcurl(s.address, "list"); o.status != 0 || !strings.Contains(o.stdout, "helloworld.Greeter\n") {
		t.Errorf("list: %+v", o)
	}
	if o := grpcurl(s.address, "describe", "helloworld.HelloRequest"); o.status != 0 || !strings.Contains(o.stdout, "string name = 1") {
		t.Errorf("describe: %+v", o)
	}
	for source, args := range map[string][]string{"reflection": nil, "file": {"-import-path", "../..", "-proto", strings.TrimPrefix(proto, "../../")}} {
		for _, call := range []struct{ method, want string }{
			{"SayHello", "Hello you"}, {"SayHelloStreamReply", "Hello y, Hello o, Hello u"},
		} {
			o := grpcurl(append(args, "-d", `{"name": "you"}`, s.address, "helloworld.Greeter/"+call.method)...)
			if got := messages(t, o.stdout); o.status != 0 || got != call.want {
				t.Errorf("%s, %s: got %q, want %q: %+v", source, call.method, got, call.want, o)
			}
		}
	}
	if o := grpcurl(s.address, "grpc.health.v1.Health/Check"); o.status != 0 || !strings.Contains(o.stdout, `"SERVING"`) {
		t.Errorf("health: %+v", o)
	}
	const invalidArgument = 64 + 3 // grpcurl ends with 64 and the status
	if o := grpcurl(s.address, "helloworld.Greeter/SayHello"); o.status != invalidArgument || !strings.Contains(o.stderr, "nobody to greet") {
		t.Errorf("a call that fails: %+v", o)
	}
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
		if err != nil {
			t.Fatalf("%v in:\n%s", err, output)
		}
		all = append(all, reply.Message)
	}
}
