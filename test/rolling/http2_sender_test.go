//go:build unix

package rolling

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"sluice/test/sluicetest"
)

// http2Sender is a client of HTTP/2, with one connection for all requests that are not fresh.
type http2Sender struct {
	client *sluicetest.HTTP2
	host   string
	body   []byte // the body of a request is a prefix of it
}

func newHTTP2Sender(dial func(context.Context) (net.Conn, error), host string, body []byte) *http2Sender {
	return &http2Sender{&sluicetest.HTTP2{Dial: dial}, host, body}
}

func (s *http2Sender) close() { s.client.CloseIdleConnections() }

func (s *http2Sender) send(id int, k kind, deadline time.Time) error {
	ctx, cancel := context.WithDeadline(context.Background(), deadline)
	defer cancel()
	body := s.body[:k.length]
	request, err := http.NewRequestWithContext(ctx, k.method, "https://"+s.host+k.path(id), bytes.NewReader(body))
	if err != nil {
		return err
	}
	request.Close = k.fresh
	response, err := s.client.RoundTrip(request)
	if err != nil {
		return fmt.Errorf("no answer: %w", err)
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err != nil {
		return fmt.Errorf("%w: %w", errHalf, err)
	}
	return checkAnswer(response, answer, id, body)
}
