package healthcheck

import (
	"context"
	"errors"
	"net"
	"strings"
	"syscall"
	"testing"

	"sluice/test/verify"
)

// Each kind of probe checks the resolved address before it connects.
func TestProbesDoNotConnectToRefusedAddresses(t *testing.T) {
	for _, probe := range []Probe{
		NewTCP(TCPOptions{}), newHTTP(HTTPOptions{}), newHTTP(HTTPOptions{Reuse: true}), NewGRPC(GRPCOptions{}), NewGRPC(GRPCOptions{Reuse: true}),
	} {
		address := serveRaw(t, func(net.Conn) { t.Errorf("%s has connected", probe) })
		_, port, _ := net.SplitHostPort(address)
		checked := ""
		err := probe.Check(t.Context(), Target{Address: "localhost:" + port, Control: func(_ context.Context, _, to string, _ syscall.RawConn) error {
			checked += " " + to
			return errors.New("not to be connected to")
		}})
		verify.That(t, err != nil && strings.Contains(err.Error(), "not to be connected to"), "%s: %v", probe, err)
		verify.Contains(t, checked, " 127.0.0.1:"+port, "%s: checked", probe)
		probe.Close()
	}
}
