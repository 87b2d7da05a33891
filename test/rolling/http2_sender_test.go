//go:build unix

package rolling

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/quic-go/quic-go/http3"
)

// http2Sender is a client of HTTP/2 or HTTP/3, with one connection for all requests that are not
// fresh.
type http2Sender struct {
	client interface {
		http.RoundTripper
		CloseIdleConnections()
	}
	host string
	body []byte // the body of a request is a prefix of it
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
	if fault := (*http3.Error)(nil); errors.As(err, &fault) && fault.ErrorCode == http3.ErrCodeInternalError {
		return fmt.Errorf("%w: %w", errHalf, err) // its beginning is lost with the stream
	}
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
