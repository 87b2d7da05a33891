package healthcheck

import (
	"context"
	"errors"
	"net"
	"strings"
	"syscall"
	"testing"
)

// Every kind of check asks before it connects, with what the name was resolved to.
func TestProbesDoNotConnectToWhatIsRefused(t *testing.T) {
	for _, probe := range []Probe{
		NewTCP(TCPOptions{}), NewHTTP(HTTPOptions{}), NewHTTP(HTTPOptions{Reuse: true}), NewGRPC(GRPCOptions{}), NewGRPC(GRPCOptions{Reuse: true}),
	} {
		address := serveRaw(t, func(net.Conn) { t.Errorf("%s has connected", probe) })
		_, port, _ := net.SplitHostPort(address)
		asked := ""
		err := probe.Check(t.Context(), Target{Address: "localhost:" + port, Control: func(_ context.Context, _, to string, _ syscall.RawConn) error {
			asked += " " + to
			return errors.New("not to be connected to")
		}})
		if err == nil || !strings.Contains(err.Error(), "not to be connected to") {
			t.Errorf("%s: %v", probe, err)
		}
		if !strings.Contains(asked, " 127.0.0.1:"+port) {
			t.Errorf("%s: asked about%s", probe, asked)
		}
		probe.Close()
	}
}
