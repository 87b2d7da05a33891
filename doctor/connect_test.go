package doctor

import (
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"sluice/discovery"
	"sluice/test/consultest"
	"sluice/test/verify"
)

// unused is a port without a listener: tcpmux, which no system starts by default. A port
// that was free before may be in use now.
const unused = 1

func TestTryAll(t *testing.T) {
	listener := verify.Result(net.Listen("tcp4", "127.0.0.1:0")).Must(t)
	defer listener.Close()
	port := listener.Addr().(*net.TCPAddr).Port
	instances := []Instance{
		star(1, "a", "127.0.0.1", port),
		star(2, "a", "127.0.0.1", unused),
		star(3, "b", "127.0.0.1", unused), // the same address again
		star(4, "a", "127.0.0.1", 0).with(func(i *Instance) { i.Unusable = "it has port 0" }),
		star(5, "a", "127.0.0.2", unused).with(func(i *Instance) { i.Status, i.Weight = discovery.StatusCritical, 0 }),
	}
	silent := connectAll(t.Context(), instances, consultest.Patience)
	why := silent[fmt.Sprintf("127.0.0.1:%d", unused)]
	verify.That(t, len(silent) == 1 && strings.Contains(why, "refused"), "%q", silent)
	silent = connectAll(t.Context(), instances[:1], time.Nanosecond)
	verify.Equal(t, silent[listener.Addr().String()], "no answer within 1ns", "%q", silent)
}
