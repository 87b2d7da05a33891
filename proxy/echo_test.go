package proxy

import (
	"bufio"
	"bytes"
	"fmt"
	"hash/crc32"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
)

// An echoOrigin answers each request with what it got, and remembers it.
type echoOrigin struct {
	*origin

	mu sync.Mutex
	// mu guards the fields below.
	working   int                       // connections
	seen      map[string][]*seenRequest // by X-Forwarded-For
	ofAborted map[string]bool           // clients that may have left something behind
	stray     []string                  // what is no request by somebody known
}

// A seenRequest is a request as net/http reads it.
type seenRequest struct {
	raw          string
	method, host string
	body         string
	complete     bool
}

func startEchoOrigin(t testing.TB) *echoOrigin {
	o := &echoOrigin{seen: make(map[string][]*seenRequest), ofAborted: make(map[string]bool)}
	o.origin = startOrigin(t, func(c *originConn) bool {
		if _, err := c.Peek(1); err != nil {
			return false
		}
		o.work(1)
		defer o.work(-1)
		return o.exchange(c)
	})
	return o
}

func (o *echoOrigin) work(n int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.working += n
}

// idle returns how many connections are open, or -1 where one is at work.
func (o *echoOrigin) idle() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.working > 0 {
		return -1
	}
	return o.open()
}

// take returns what came from a client, and forgets it.
func (o *echoOrigin) take(t testing.TB, client netip.Addr, aborted bool) []*seenRequest {
	o.mu.Lock()
	defer o.mu.Unlock()
	for name, late := range o.seen {
		if name != client.String() && !o.ofAborted[name] && late[0].complete {
			o.stray = append(o.stray, late[0].raw)
		}
	}
	for _, raw := range o.stray {
		t.Errorf("the peer got what nobody sent: %.500q", raw)
	}
	o.stray = nil
	seen := o.seen[client.String()]
	clear(o.seen)
	o.ofAborted[client.String()] = aborted
	return seen
}

// exchange reads one request and answers it.
func (o *echoOrigin) exchange(c *originConn) bool {
	var raw bytes.Buffer
	r := &seenRequest{}
	target, client, ok := r.read(bufio.NewReader(io.TeeReader(oneByteReader{c.Reader}, &raw)))
	r.raw = raw.String()
	o.forget()
	o.mu.Lock()
	if ok {
		o.seen[client] = append(o.seen[client], r)
	} else if strings.Contains(r.raw, "\r\n\r\n") { // not a head that was cut
		o.stray = append(o.stray, r.raw)
	}
	o.mu.Unlock()
	if !r.complete {
		return false
	}
	body := echo(r.method, target, r.body)
	head := fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", len(body))
	if r.method == "HEAD" {
		body = ""
	}
	return c.write(head + body)
}

func echo(method, target, body string) string {
	return fmt.Sprintf("%q %q %d %x", method, target, len(body), crc32.ChecksumIEEE([]byte(body)))
}

// read reads a request with net/http. That knows no paths but those of a URL,
// and no announcement of odd trailers: it does not get to see them.
func (r *seenRequest) read(reader *bufio.Reader) (target, client string, ok bool) {
	line, err := reader.ReadString('\n')
	method, rest, _ := strings.Cut(line, " ")
	target, version, _ := strings.Cut(rest, " ")
	head := method + " / " + version
	for err == nil {
		if line, err = reader.ReadString('\n'); line == "\r\n" {
			break
		}
		if name, value, _ := strings.Cut(line, ":"); strings.EqualFold(name, "X-Forwarded-For") {
			client = strings.TrimSpace(value)
		} else if strings.EqualFold(name, "Trailer") {
			continue
		}
		head += line
	}
	request, err := http.ReadRequest(bufio.NewReaderSize(io.MultiReader(strings.NewReader(head+"\r\n"), reader), 2*oracleTrailerBytes))
	if err != nil || client == "" {
		return target, client, false
	}
	r.method, r.host = request.Method, request.Host
	body, err := io.ReadAll(request.Body)
	r.body, r.complete = string(body), err == nil
	return target, client, true
}

// readWitnessed reads a request whatever its target is, which net/http would
// not. Its body may take up to mostBytes from the reader that follow the request, and
// cannot have more bytes of trailers.
func readWitnessed(reader *bufio.Reader, mostBytes int) (*http.Request, error) {
	line, err := reader.ReadString('\n')
	if err != nil {
		return nil, err
	}
	parts := strings.Split(strings.TrimRight(line, "\r\n"), " ")
	if len(parts) != 3 {
		return nil, fmt.Errorf("request line %q", line)
	}
	// Of a *bufio.Reader that is large enough, ReadRequest takes no copy.
	joined := bufio.NewReaderSize(io.MultiReader(strings.NewReader(parts[0]+" / "+parts[2]+"\r\n"), reader), mostBytes)
	r, err := http.ReadRequest(joined)
	if err != nil {
		return nil, fmt.Errorf("read request: %w", err)
	}
	r.RequestURI = parts[1]
	return r, nil
}
