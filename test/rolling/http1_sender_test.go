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
	"time"
)

type http1Sender struct {
	dial func(context.Context) (net.Conn, error)
	host string
	body []byte // the body of a request is a prefix of it

	mu   sync.Mutex // guards the field below
	idle []*http1Conn
}

// errHalf: an answer has begun, and is not complete.
var errHalf = errors.New("half an answer")

type http1Conn struct {
	net.Conn
	reader *bufio.Reader
}

func (s *http1Sender) close() {
	for _, conn := range s.idle {
		conn.Close()
	}
}

func (s *http1Sender) send(id int, k kind, deadline time.Time) error {
	conn, err := s.conn(k, deadline)
	if err != nil {
		return err
	}
	keep, err := s.exchange(conn, id, k)
	if err != nil || !keep {
		conn.Close()
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.idle = append(s.idle, conn)
	return nil
}

func (s *http1Sender) conn(k kind, deadline time.Time) (*http1Conn, error) {
	s.mu.Lock()
	if last := len(s.idle) - 1; !k.fresh && last >= 0 {
		conn := s.idle[last]
		s.idle = s.idle[:last]
		s.mu.Unlock()
		return conn, conn.SetDeadline(deadline)
	}
	s.mu.Unlock()
	ctx, cancel := context.WithDeadline(context.Background(), deadline)
	defer cancel()
	conn, err := s.dial(ctx)
	if err != nil {
		return nil, err
	}
	return &http1Conn{conn, bufio.NewReader(conn)}, conn.SetDeadline(deadline)
}

// exchange sends a request, and checks that the response belongs to it. keep reports whether the
// connection can be reused.
func (s *http1Sender) exchange(conn *http1Conn, id int, k kind) (keep bool, err error) {
	var request bytes.Buffer
	fmt.Fprintf(&request, "%s %s HTTP/1.1\r\nHost: %s\r\n", k.method, k.path(id), s.host)
	if k.fresh {
		request.WriteString("Connection: close\r\n")
	}
	if k.method == http.MethodPost || k.length > 0 {
		fmt.Fprintf(&request, "Content-Length: %d\r\n", k.length)
	}
	request.WriteString("\r\n")
	body := s.body[:k.length]
	request.Write(body)
	_, sendErr := conn.Write(request.Bytes())

	response, err := http.ReadResponse(conn.reader, &http.Request{Method: k.method}) // also after an incomplete request
	if err != nil {
		return false, errors.Join(fmt.Errorf("no answer: %w", err), sendErr)
	}
	answer, err := io.ReadAll(response.Body)
	if err != nil {
		return false, fmt.Errorf("%w: %w", errHalf, err)
	}
	if err := checkAnswer(response, answer, id, body); err != nil {
		return false, err
	}
	return !response.Close && !k.fresh && sendErr == nil, nil
}

// checkAnswer returns an error unless an answer belongs to a request and to all of its body.
func checkAnswer(response *http.Response, answer []byte, id int, body []byte) error {
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s (%s)", response.Status, response.Header.Get("X-Sluice-Reason"))
	}
	_, got, _ := strings.Cut(strings.TrimSpace(string(answer)), " ")
	if want := fmt.Sprintf("%d %d %d", id, len(body), crc32.ChecksumIEEE(body)); got != want {
		return fmt.Errorf("answer %q, want %q", got, want)
	}
	return nil
}
