package gateway

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"sluice/config"
	"sluice/healthcheck"
	"sluice/healthcheck/statuses"
	"sluice/test/verify"
)

// Checks use HTTP/2 where requests do, except on another port.
func TestProtocolOfChecks(t *testing.T) {
	t.Parallel()
	var got string
	peer := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got = r.Proto }))
	peer.Config.Protocols = new(http.Protocols)
	peer.Config.Protocols.SetHTTP1(true)
	peer.Config.Protocols.SetUnencryptedHTTP2(true)
	peer.Start()
	defer peer.Close()
	for _, test := range []struct {
		protocol string
		port     int
		want     string
	}{
		{"http1", 0, "HTTP/1.1"},
		{config.ProtocolH2C, 0, "HTTP/2.0"},
		{config.ProtocolH2, 0, "HTTP/2.0"},
		{config.ProtocolH2C, 8080, "HTTP/1.1"},
	} {
		c := &config.Service{Upstream: config.Upstream{Protocol: test.protocol}}
		c.Health.Active = &config.ActiveCheck{Type: "http", Method: "GET", Path: "/", Port: test.port}
		c.Health.Active.Expect.Status.Value, _ = statuses.Parse("200")
		s := healthSettings(c, nil)
		verify.Succeeds(t, s.Active.Probe.Check(t.Context(), healthcheck.Target{Address: peer.Listener.Addr().String()}))
		verify.Equal(t, got, test.want, "protocol %s, port %d", test.protocol, test.port)
	}
}
