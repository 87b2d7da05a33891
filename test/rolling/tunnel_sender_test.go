//go:build unix

package rolling

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/coder/websocket"
)

// tunnelSender is a client of WebSocket or TCP, with a connection for each request, in which it exchanges
// streamMessages messages.
type tunnelSender struct {
	target
	protocol protocol
	body     []byte // the payload of a message is a prefix of it
}

func (s *tunnelSender) close() {}

func (s *tunnelSender) send(id int, k kind, deadline time.Time) error {
	ctx, cancel := context.WithDeadline(context.Background(), deadline)
	defer cancel()
	message := strconv.AppendInt(nil, int64(id), 10)
	message = append(append(message, ' '), s.body[:k.length]...)
	if s.protocol == tcp {
		return s.overTCP(ctx, message)
	}
	return s.overWebSocket(ctx, k.path(id), message)
}

func (s *tunnelSender) overTCP(ctx context.Context, message []byte) error {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", s.stream)
	if err != nil {
		return err
	}
	defer conn.Close()
	if deadline, ok := ctx.Deadline(); ok {
		conn.SetDeadline(deadline)
	}
	reader := bufio.NewReader(conn)
	return exchangeMessages(message, func() (string, error) {
		if _, err := fmt.Fprintf(conn, "%s\n", message); err != nil {
			return "", err
		}
		line, err := reader.ReadString('\n')
		return strings.TrimSpace(line), err
	})
}

func (s *tunnelSender) overWebSocket(ctx context.Context, path string, message []byte) error {
	transport := &http.Transport{DisableKeepAlives: true, TLSClientConfig: s.tls.Clone()}
	conn, response, err := websocket.Dial(ctx, "wss://"+s.secure+path, &websocket.DialOptions{
		Host: s.host, HTTPClient: &http.Client{Transport: transport},
	})
	if err != nil {
		if response != nil {
			err = fmt.Errorf("%w (%s)", err, response.Header.Get("X-Sluice-Reason"))
		}
		return err
	}
	defer conn.CloseNow()
	err = exchangeMessages(message, func() (string, error) {
		if err := conn.Write(ctx, websocket.MessageText, message); err != nil {
			return "", err
		}
		_, answer, err := conn.Read(ctx)
		return string(answer), err
	})
	if err != nil {
		return err
	}
	return conn.Close(websocket.StatusNormalClosure, "")
}

// exchangeMessages sends a message with ask several times, and checks that all answers are for it and
// of one instance.
func exchangeMessages(message []byte, ask func() (answer string, err error)) error {
	first := ""
	for number := range streamMessages {
		if number > 0 {
			time.Sleep(streamPause)
		}
		answer, err := ask()
		if err != nil {
			return fmt.Errorf("after %d answers: %w", number, err)
		}
		if first == "" {
			instance, _, _ := strings.Cut(answer, " ")
			first = answerTunnel(instance, message)
		}
		if answer != first {
			return fmt.Errorf("answer %q, want %q", answer, first)
		}
	}
	return nil
}
