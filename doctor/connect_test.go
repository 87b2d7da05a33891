package doctor

import (
	"net"
	"strings"
	"testing"
	"time"

	"sluice/discovery"
)

func TestTryAll(t *testing.T) {
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	must(t, err)
	defer listener.Close()
	closed, err := net.Listen("tcp4", "127.0.0.1:0")
	must(t, err)
	closed.Close()
	port := func(l net.Listener) int { return l.Addr().(*net.TCPAddr).Port }
	instances := []Instance{
		star(1, "a", "127.0.0.1", port(listener)),
		star(2, "a", "127.0.0.1", port(closed)),
		star(3, "b", "127.0.0.1", port(closed)), // the same address again
		star(4, "a", "127.0.0.1", 0).with(func(i *Instance) { i.Unusable = "it has port 0" }),
		star(5, "a", "127.0.0.2", port(closed)).with(func(i *Instance) { i.Status, i.Weight = discovery.StatusCritical, 0 }),
	}
	silent := tryAll(t.Context(), instances, 10*time.Second)
	if why := silent[closed.Addr().String()]; len(silent) != 1 || !strings.Contains(why, "refused") {
		t.Errorf("%q", silent)
	}
	silent = tryAll(t.Context(), instances[:1], time.Nanosecond)
	if why := silent[listener.Addr().String()]; why != "no answer within 1ns" {
		t.Errorf("%q", silent)
	}
}
