//go:build unix

package rolling

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// kind is a kind of request.
type kind struct {
	method string
	length int  // of the body
	fresh  bool // on a new connection; otherwise on a persistent one
}

func (k kind) String() string {
	connection := "keep-alive"
	if k.fresh {
		connection = "fresh"
	}
	switch {
	case k.length >= 1000:
		return fmt.Sprintf("%s %d kB, %s", k.method, k.length/1000, connection)
	case k.length > 0:
		return fmt.Sprintf("%s %d B, %s", k.method, k.length, connection)
	}
	return fmt.Sprintf("%s, %s", k.method, connection)
}

var (
	getKept    = kind{"GET", 0, false}
	getFresh   = kind{"GET", 0, true}
	postKept   = kind{"POST", 200, false}
	postFresh  = kind{"POST", 200, true}
	largeKept  = kind{"POST", 100_000, false}
	largeFresh = kind{"POST", 100_000, true}

	kinds = []kind{getKept, getFresh, postKept, postFresh, largeKept, largeFresh}
	// mix is their order, which repeats.
	mix = []kind{
		getKept, postKept, getFresh, getKept, postFresh, getKept, postKept, getFresh, getKept, largeKept,
		getKept, postKept, getFresh, getKept, postFresh, getKept, postKept, getFresh, getKept, largeFresh,
	}
)

// requestTimeout is the timeout of a client.
const requestTimeout = 35 * time.Second

// maxInFlight limits the requests in flight to those of a second. On an overloaded machine
// more would accumulate.
const maxInFlight = perSecond

// result is the result of a request.
type result struct {
	id      int
	kind    kind
	due     time.Time     // scheduled time
	latency time.Duration // since then
	err     error
}

// load sends requests at a constant rate, also if earlier ones have not ended. The client
// does not retry.
type load struct {
	address, host string
	body          []byte // the body of a request is a prefix of it
	cancel        context.CancelFunc
	running       sync.WaitGroup
	inFlight      atomic.Int64
	unsent        atomic.Int64 // requests that were not sent because of maxInFlight

	mu      sync.Mutex // guards the fields below
	idle    []*clientConn
	results []result
}

// clientConn is a connection to the gateway.
type clientConn struct {
	net.Conn
	reader *bufio.Reader
}

// startLoad sends perSecond requests a second to a host at an address.
func startLoad(address, host string, perSecond int) *load {
	ctx, cancel := context.WithCancel(context.Background())
	l := &load{address: address, host: host, body: bytes.Repeat([]byte("0123456789abcdef"), 100_000/16+1), cancel: cancel}
	l.running.Go(func() {
		start := time.Now()
		timer := time.NewTimer(0)
		defer timer.Stop()
		for id := 0; ; id++ {
			due := start.Add(time.Duration(id) * time.Second / time.Duration(perSecond))
			timer.Reset(time.Until(due))
			select {
			case <-ctx.Done():
				return
			case <-timer.C:
			}
			if l.inFlight.Load() >= maxInFlight {
				l.unsent.Add(1)
				continue
			}
			l.inFlight.Add(1)
			l.running.Go(func() {
				defer l.inFlight.Add(-1)
				l.one(id, mix[id%len(mix)], due)
			})
		}
	})
	return l
}

// stop ends the load, waits for the requests in flight, and returns all results.
func (l *load) stop() []result {
	l.cancel()
	l.running.Wait()
	for _, conn := range l.idle {
		conn.Close()
	}
	return l.results
}

func (l *load) one(id int, k kind, due time.Time) {
	err := l.send(id, k, due.Add(requestTimeout))
	latency := time.Since(due)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.results = append(l.results, result{id, k, due, latency, err})
}

func (l *load) send(id int, k kind, deadline time.Time) error {
	conn, err := l.conn(k, deadline)
	if err != nil {
		return err
	}
	keep, err := l.exchange(conn, id, k)
	if err != nil || !keep {
		conn.Close()
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.idle = append(l.idle, conn)
	return nil
}

// conn returns a connection for a request of the kind.
func (l *load) conn(k kind, deadline time.Time) (*clientConn, error) {
	l.mu.Lock()
	if last := len(l.idle) - 1; !k.fresh && last >= 0 {
		conn := l.idle[last]
		l.idle = l.idle[:last]
		l.mu.Unlock()
		return conn, conn.SetDeadline(deadline)
	}
	l.mu.Unlock()
	conn, err := net.DialTimeout("tcp", l.address, time.Until(deadline))
	if err != nil {
		return nil, err
	}
	return &clientConn{conn, bufio.NewReader(conn)}, conn.SetDeadline(deadline)
}

// exchange sends a request, and checks that the response belongs to it. keep reports whether the
// connection can be reused.
func (l *load) exchange(conn *clientConn, id int, k kind) (keep bool, err error) {
	var request bytes.Buffer
	fmt.Fprintf(&request, "%s /%d HTTP/1.1\r\nHost: %s\r\n", k.method, id, l.host)
	if k.fresh {
		request.WriteString("Connection: close\r\n")
	}
	if k.method == http.MethodPost {
		fmt.Fprintf(&request, "Content-Length: %d\r\n", k.length)
	}
	request.WriteString("\r\n")
	body := l.body[:k.length]
	request.Write(body)
	_, sendErr := conn.Write(request.Bytes())

	response, err := http.ReadResponse(conn.reader, &http.Request{Method: k.method}) // also after an incomplete request
	if err != nil {
		return false, errors.Join(fmt.Errorf("no answer: %w", err), sendErr)
	}
	answer, err := io.ReadAll(response.Body)
	if err != nil {
		return false, fmt.Errorf("half an answer: %w", err)
	}
	if response.StatusCode != http.StatusOK {
		return false, fmt.Errorf("%s (%s)", response.Status, response.Header.Get("X-Sluice-Reason"))
	}
	_, got, _ := strings.Cut(strings.TrimSpace(string(answer)), " ")
	if want := fmt.Sprintf("%d %d %d", id, len(body), crc32.ChecksumIEEE(body)); got != want {
		return false, fmt.Errorf("answer %q, want %q", got, want)
	}
	return !response.Close && !k.fresh && sendErr == nil, nil
}
