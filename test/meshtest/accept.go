package meshtest

import (
	"context"
	"io"
	"log"
	"net"
	"sync"
	"testing"
)

// silent is for servers whose clients leave as they like.
var silent = log.New(io.Discard, "", 0)

// accept calls serve with each connection of l until t ends, and closes the connection after it.
func accept(t testing.TB, l net.Listener, serve func(net.Conn)) {
	var running sync.WaitGroup
	ended, end := context.WithCancel(context.Background())
	running.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			running.Go(func() {
				defer c.Close()
				defer context.AfterFunc(ended, func() { c.Close() })()
				serve(c)
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		end()
		running.Wait()
	})
}
