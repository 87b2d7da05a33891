//go:build !race

package proxy

import "testing"

// An idle connection has a clientConn and a place in two tables, and no goroutine.
func TestIdleConnectionHoldsLittle(t *testing.T) {
	const (
		conns = 1000
		limit = 1500 // bytes for each, with some 500 for the socket of the test itself
	)
	origin := startOrigin(t, answering(okResponse))
	p := startProxy(t, Options{}, origin.address())
	for _, conn := range p.idleClients(conns) { // so that there are as many goroutines to reuse
		conn.Close()
	}
	eventually(t, "no connection is left", func() bool { return p.Connections() == 0 })
	before := memory()
	p.idleClients(conns)
	var each int64
	eventually(t, "little memory", func() bool {
		each = (memory() - before) / conns
		return each < limit
	})
	t.Logf("%d bytes each", each)
}
