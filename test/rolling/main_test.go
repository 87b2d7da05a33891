//go:build unix

package rolling

import (
	"fmt"
	"net"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
	"testing"

	"sluice/cli"
	"sluice/test/parallel"
)

// envRole makes the test binary run as another program: "sluice", or "app" with an address.
const envRole = "ROLLING_TEST_ROLE"

func TestMain(m *testing.M) {
	switch os.Getenv(envRole) {
	case "sluice":
		os.Exit(cli.Run(os.Args[1:], os.Stdout, os.Stderr))
	case "app":
		os.Exit(runApp(os.Args[1]))
	}
	parallel.SetDefault(3) // of them two wait most of the time
	os.Exit(m.Run())
}

// runApp is an instance that knows nothing of Consul. It stops gracefully after SIGTERM.
func runApp(address string) (status int) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM)
	listener, err := net.Listen("tcp", address)
	if err != nil {
		fmt.Println(err)
		return 1
	}
	i := instance{name: address, ledger: newLedger(), work: new(atomic.Int64), hung: make(chan struct{}), dead: make(chan struct{})}
	i.work.Store(int64(work))
	s := serveHTTP1(i, listener.(*net.TCPListener))
	<-signals
	s.stop()
	return 0
}
