package socket

import (
	"net"
	"testing"
	"time"

	"sluice/test/verify"
)

// pair returns both ends of a connection.
func pair(t *testing.T) (ours, theirs *net.TCPConn) {
	t.Helper()
	l := verify.Result(net.Listen("tcp", "127.0.0.1:0")).Must(t)
	defer l.Close()
	ours = verify.Result(net.Dial("tcp", l.Addr().String())).Must(t).(*net.TCPConn)
	t.Cleanup(func() { ours.Close() })
	theirs = verify.Result(l.Accept()).Must(t).(*net.TCPConn)
	t.Cleanup(func() { theirs.Close() })
	return ours, theirs
}

// Bodies that pause keep their pipes, and have few of them: the bytes of others are copied. Each
// pipe is given back.
func TestPipesAreFew(t *testing.T) {
	const few, bodies, length = 2, 5, 1000
	before := maxPipes
	maxPipes = few
	defer func() { maxPipes = before }()
	sweeper := NewSweeper()
	side := func(c *net.TCPConn) Side {
		entry := new(SweepEntry)
		sweeper.Add(entry, c, 0)
		return Side{Raw: verify.Result(c.SyscallConn()).Must(t), Entry: entry, Sweeper: sweeper, Timeout: time.Hour}
	}
	type end struct {
		ok    bool
		moved int64
		err   error
	}
	ends := make(chan end, bodies)
	var peers []*net.TCPConn
	for range bodies {
		source, peer := pair(t)
		sink, _ := pair(t)
		peers = append(peers, peer)
		from, to := side(source), side(sink)
		go func() {
			var e end
			e.ok, _, e.err = Splice(to, from, new(Pace), length, &e.moved, nil)
			ends <- e
		}()
	}
	for range bodies - few {
		e := <-ends
		verify.That(t, !e.ok && e.moved == 0 && e.err == nil, "without a pipe: got %+v", e)
	}
	verify.Equal(t, pipesInUse.Load(), few, "pipes in use")
	for _, peer := range peers {
		peer.Write(make([]byte, length))
	}
	for range few {
		e := <-ends
		verify.That(t, e.ok && e.moved == length && e.err == nil, "with a pipe: got %+v", e)
	}
	verify.Equal(t, pipesInUse.Load(), 0, "pipes in use at the end")
}

func TestMaxPipes(t *testing.T) {
	for descriptors, want := range map[uint64]int{0: 1, 100: 1, 1024: 16, 1 << 19: 1 << 13, 1 << 63: 1 << 15} {
		verify.Equal(t, MaxPipes(descriptors), want, "of %d descriptors", descriptors)
	}
}
