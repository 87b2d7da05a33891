package gateway

import (
	"fmt"
	"testing"

	"sluice/config"
)

// Checks use HTTP/2 where requests do, except on another port.
func TestProtocolOfChecks(t *testing.T) {
	for _, test := range []struct {
		protocol string
		port     int
		want     string
	}{
		{"http1", 0, "*healthcheck.HTTP"},
		{config.ProtocolH2C, 0, "*healthcheck.HTTP2"},
		{config.ProtocolH2, 0, "*healthcheck.HTTP2"},
		{config.ProtocolH2C, 8080, "*healthcheck.HTTP"},
	} {
		c := &config.Service{Upstream: config.Upstream{Protocol: test.protocol}}
		c.Health.Active = &config.ActiveCheck{Type: "http", Port: test.port}
		c.Health.Active.Expect.Status = "200"
		s, err := healthSettings(c, nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprintf("%T", s.Active.Probe); got != test.want {
			t.Errorf("protocol %s, port %d: %s, want %s", test.protocol, test.port, got, test.want)
		}
	}
}
